"""Ports at which ranks meet that a test starts without ptx."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _COUNT, _WORKERS = 30_000, 2_752, 16
"""Below what the kernel hands to whoever asks for any port: rank 0 listens seconds after it was
given its port, and any connection of another test could have taken one of those meanwhile. Above
those of ptx itself and of the tests' SLURM."""
_BLOCK = _COUNT // _WORKERS
_turn = itertools.count(os.getpid())


def free_port() -> int:
    """One that no other worker of pytest gives, and this one not again for a long time."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    for turn in itertools.islice(_turn, _BLOCK):
        port = _FIRST + worker * _BLOCK + turn % _BLOCK
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port of {_BLOCK} from {_FIRST + worker * _BLOCK}")
