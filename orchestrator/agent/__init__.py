"""What runs on every node: the agent, and one shim a rank. Standard library only, and of that
only what Python 3.9 has: where ptx's own interpreter is missing, the node's python3 runs it.

These modules are packed into agent.pyz, which nodes without ptx run with `python -I -S`.
A shim is started once a rank, so what it imports is kept small: os instead of pathlib and
subprocess, no typing, no dataclasses (together they cost a start 20 to 50 ms and 5 MiB).
"""
