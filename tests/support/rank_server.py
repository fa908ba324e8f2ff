"""Forks ranks out of a process that has imported torch: importing it costs more than most cases.

Run by forked_ranks.py, with a socket of messages as its first argument. A request is
`{"script": path, "args": [...], "env": {...}, "cwd": path}` with the files for stdout and stderr
beside it; answered with the pid at once, and with `[pid, wait status]` when that process is over.
A pid as a request ends that process, if it still is one of these.
A forked process leaves this module and ends as a script does, through the interpreter's own end.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

PRELOADED = (
    "peft",
    "pydantic",
    "torch.distributed.fsdp",
    "torch.distributed.pipelining",
    "torch.distributed.tensor.parallel",
    "transformers.models.llama.modeling_llama",
)
"""Of ptx itself nothing: the ranks import it, as they do everywhere."""
LARGEST = 1 << 20


def serve(control: socket.socket) -> dict[str, Any]:
    """Returns in each forked process, with its request; the server itself exits when nobody asks
    any more."""
    waited: dict[int, int] = {}
    """By pidfd, the pid."""
    while True:
        ready, _, _ = select.select([control, *waited], [], [])
        for pidfd in set(ready) & set(waited):
            pid, status = os.waitpid(waited.pop(pidfd), 0)
            os.close(pidfd)
            control.send(json.dumps([pid, status]).encode())
        if control not in ready:
            continue
        message, files, _, _ = socket.recv_fds(control, LARGEST, 2)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if isinstance(request, int):
            if request in waited.values():
                os.kill(request, signal.SIGKILL)
            continue
        # A thread would be missing in the child, and what it held would stay locked.
        assert len(list(Path("/proc/self/task").iterdir())) == 1
        pid = os.fork()
        if pid == 0:
            control.close()
            for pidfd in waited:
                os.close(pidfd)
            _become(request, *files)
            found: dict[str, Any] = request
            return found
        for file in files:
            os.close(file)
        waited[os.pidfd_open(pid)] = pid
        control.send(json.dumps(pid).encode())


def _become(request: dict[str, Any], out: int, err: int) -> None:
    """As the process that `python script args` would be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file, number)
        os.close(file)
    sys.argv = [request["script"], *request["args"]]
    sys.path[0] = str(Path(request["script"]).parent)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks has it, and ends the ranks
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    chosen = serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(chosen["script"], run_name="__main__")
