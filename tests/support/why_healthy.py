"""Runs that do well and say things that sound like trouble: no cause may be made of any of it."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = "import logging, os, sys, time, traceback, warnings\nrank = int(os.environ['RANK'])\n"
"""Before every script."""


@dataclass(frozen=True)
class Healthy:
    name: str
    script: str
    launcher: str = "torchrun"


def caught(error: str) -> str:
    """A traceback that was logged, and the work went on."""
    return (
        "for step in range(3):\n    try:\n"
        f"        raise {error}\n"
        "    except Exception:\n        logging.exception('step %d failed, trying again', step)\n"
        "print('done', flush=True)\n"
    )


def says(*lines: str, stream: str = "stderr") -> str:
    return "".join(f"print({line!r}, file=sys.{stream}, flush=True)\n" for line in lines)


HEALTHY: tuple[Healthy, ...] = (
    Healthy("caught-value", caught("ValueError('bad batch 17, skipped')")),
    Healthy("caught-oom", caught("RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')")),
    Healthy("caught-space", caught("OSError(28, 'No space left on device')"), "accelerate"),
    Healthy("caught-connection", caught("ConnectionRefusedError(111, 'Connection refused')")),
    Healthy("caught-timeout", caught("TimeoutError('timed out after 10 s')"), "deepspeed"),
    Healthy("caught-import", caught("ModuleNotFoundError(\"No module named 'flash_attn'\")")),
    Healthy(
        "warnings",
        "for text in ('overflow encountered', 'NaN or Inf found in input tensor', 'deprecated'):\n"
        "    warnings.warn(text)\n",
    ),
    Healthy(
        "words",
        says(
            "error rate 0.02 timeout=600 nccl=off killed=0 failed=0",
            "0 errors, 0 failures, 3 timeouts retried",
            "connection closed by peer policy: retry",
        ),
    ),
    Healthy(
        "nccl-notes",
        says(
            "vm:12:12 [0] NCCL INFO NET/Plugin: No plugin found (libnccl-net.so)",
            "vm:12:12 [0] NCCL WARN Call to ibv_create_qp failed with error Cannot allocate memory",
            "[W socket.cpp:601] The client socket has failed to connect to [::1]:29500 (errno: 99)",
        ),
    ),
    Healthy(
        "scaler",
        says(
            "Gradient overflow. Skipping step, loss scaler 0 reducing loss scale to 32768.0",
            "loss nan at step 3, step skipped",
            stream="stdout",
        ),
    ),
    Healthy(
        "port",
        "import socket\ntaken = socket.socket()\ntaken.bind(('', 0))\ntaken.listen()\n"
        "try:\n    socket.socket().bind(('', taken.getsockname()[1]))\n"
        "except OSError as error:\n    print('port in use, taking another:', error)\n",
    ),
    Healthy(
        "child-killed",
        "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nchild.kill()\n"
        "print('child ended by', -child.wait(), file=sys.stderr)\n",
    ),
    Healthy(
        "child-crashed",
        "import subprocess\n"
        "crash = 'import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)'\n"
        "print('probe ended with', subprocess.run([sys.executable, '-c', crash]).returncode)\n",
    ),
    Healthy(
        "thread-died",
        "import threading\ndef work():\n    raise KeyError('labels')\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join()\nprint('goes on')\n",
    ),
    Healthy(
        "stacks-on-demand",
        "import faulthandler\nfaulthandler.dump_traceback(all_threads=True)\nprint('as asked')\n",
    ),
    Healthy(
        "bars",
        "for done in range(50):\n"
        "    print(f'\\rerrors: 0 {done}/50', end='', file=sys.stderr, flush=True)\nprint()\n",
        "accelerate",
    ),
    Healthy(
        "terminated-child",
        "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('SIGUSR1: state written'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n",
    ),
    Healthy(
        "group-left-open",
        "import torch, torch.distributed as dist\ndist.init_process_group('gloo')\n"
        "dist.all_reduce(torch.ones(1))\n",
        "deepspeed",
    ),
    Healthy(
        "unpicklable-worker",
        "import concurrent.futures as futures\n"
        "with futures.ThreadPoolExecutor(2) as pool:\n"
        "    job = pool.submit(lambda: 1 / 0)\n"
        "    print('ignored:', repr(job.exception()), file=sys.stderr)\n",
    ),
    Healthy(
        "summary-of-others",
        says(
            "Traceback (most recent call last):",
            '  File "/home/ann/other.py", line 3, in <module>',
            "RuntimeError: [/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]",
            "(the log of last night's run ends here)",
            "slurmstepd: error: Detected 1 oom-kill event(s) in yesterday's StepId=4711.batch",
            stream="stdout",
        ),
    ),
)

IN_TESTS = ("caught-oom", "nccl-notes", "summary-of-others", "thread-died")
SILENT_IN_TESTS = ("caught-oom", "child-crashed")
QUIET_END = "\nif rank == 1:\n    time.sleep(12)\n    os._exit(3)\ntime.sleep(60)\n"
"""A failure without a word, long after: what was said before is no cause of it."""
