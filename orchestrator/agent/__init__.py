"""What runs on every node: the agent, and one shim a rank. Standard library only.

These modules are packed into agent.pyz, which nodes without ptx run with `python -I -S`.
A shim is started once a rank, so what it imports is kept small: os instead of pathlib and
subprocess, no typing, no dataclasses (together they would double its start and cost 4 MiB).
"""
