"""The contenders of benchmarks/training.py and benchmarks/gpu.py."""
