"""agent.pyz, built from this package's own sources and pynvml. Not itself part of it."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_LEFT_OUT = {"archive.py"}
_MAIN = b"""import sys

if sys.version_info < (3, 9):  # a node's own python3 may be of any age
    version = "%d.%d" % sys.version_info[:2]
    raise SystemExit("ptx: %s is Python %s, the agent needs 3.9" % (sys.executable, version))

from orchestrator.agent.main import main

raise SystemExit(main())
"""
_DRIVER = "pynvml.py"
_TIME = (1980, 1, 1, 0, 0, 0)


@cache
def agent_archive() -> bytes:
    """The archive that `python -I -S` runs: the same bytes from the same sources, always."""
    folder = Path(__file__).parent
    files = {"__main__.py": _MAIN, "orchestrator/__init__.py": b""}
    for path in folder.glob("*.py"):
        if path.name not in _LEFT_OUT:
            files[f"orchestrator/agent/{path.name}"] = path.read_bytes()
    driver = _driver()
    if driver is not None:
        files[_DRIVER] = driver
    buffer = io.BytesIO()
    # Stored, not deflated: a thousand shims start without zlib, and people can read it.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            if name == _DRIVER:  # only a sampler reads it, and it is as large as all the rest
                info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return buffer.getvalue()


def _driver() -> bytes | None:
    """NVML's Python binding, one file without requirements, as it is installed here."""
    found = find_spec(Path(_DRIVER).stem)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return None
    return Path(found.origin).read_bytes()
