"""The GPUs and CPU cores of this machine."""
