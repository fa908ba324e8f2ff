"""Failures that are provoked for real on CPU, and what `ptx why` has to say of each.

Scripts are as small as the failure allows: most need no torch, so a launch costs its launcher.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JOBS = Path(__file__).resolve().parents[2] / "jobs"


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    """What went wrong, in two words: cases of one kind differ in how it shows."""
    script: str
    state: str
    """The class that must be named."""
    rank: int | None
    """The first failing rank; None where no rank is to blame. ANY where all fail alike."""
    rule: str | None
    """The id of the rule that must explain it; None where the exception says all there is."""
    launcher: str = "torchrun"
    spec: dict[str, Any] = field(default_factory=dict)
    """More keys of the spec."""
    procs: int = 2
    listens: bool = False
    """While somebody listens on the port that the spec names as rendezvous.port."""


ANY = -1
"""Of several ranks that fail in the same way within milliseconds, any may be the first."""


@contextmanager
def listener() -> Iterator[int]:
    """A port of this machine that is taken."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


WAIT = "import os, time\nrank = int(os.environ['RANK'])\n"
"""Rank 0 waits to be told to end; rank 1 is what the case is about."""


def one(body: str) -> str:
    """Rank 1 does this half a second in, the others wait."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"{WAIT}if rank == 1:\n    time.sleep(0.5)\n{lines}time.sleep(60)\n"


GLOO = """
import datetime, os, signal, sys, time
import torch
import torch.distributed as dist
rank = int(os.environ["RANK"])
def start(seconds=60, **options):
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=seconds), **options)
    dist.all_reduce(torch.ones(1))
"""


def gloo(body: str, seconds: int = 60) -> str:
    return f"{GLOO}start({seconds})\n{body}"


TRAINING = f"""
import os, runpy, sys
{{change}}
sys.path.insert(0, "{JOBS}")
sys.argv = ["train_lm.py", "--steps", "2"]
runpy.run_path("{JOBS}/train_lm.py", run_name="__main__")
"""
"""One of ptx's own trainings, after a `change` that its wrapper makes."""

SUM = "dist.all_reduce(torch.ones(1))\n"

CASES: tuple[Case, ...] = (
    Case(
        "value-error",
        "the script's own error",
        one("raise ValueError('bad batch 17')"),
        "failed",
        1,
        None,
    ),
    Case(
        "value-error-accelerate",
        "the script's own error",
        one("raise ValueError('bad batch 17')"),
        "failed",
        1,
        None,
        launcher="accelerate",
    ),
    Case(
        "value-error-deepspeed",
        "the script's own error",
        one("raise ValueError('bad batch 17')"),
        "failed",
        1,
        None,
        launcher="deepspeed",
    ),
    Case(
        "exit-3",
        "exit without a word",
        one("print('giving up'); raise SystemExit(3)"),
        "failed",
        1,
        None,
    ),
    Case(
        "all-alike",
        "the script's own error",
        WAIT + "print('step 1')\nraise KeyError('labels')\n",
        "failed",
        ANY,
        None,
    ),
    Case(
        "peer-raised",
        "connection closed",
        gloo("if rank == 1:\n    raise ValueError('bad batch 17')\n" + SUM * 3),
        "failed",
        1,
        None,
    ),
    Case(
        "peer-raised-4",
        "connection closed",
        gloo(
            "for step in range(100):\n    if rank == 2 and step == 3:\n"
            "        raise RuntimeError('shard 5 is corrupt')\n    " + SUM
        ),
        "failed",
        2,
        None,
        procs=4,
    ),
    Case(
        "peer-left",
        "connection closed",
        gloo("if rank == 1:\n    os._exit(7)\n" + SUM * 3),
        "failed",
        1,
        None,
    ),
    Case(
        "peer-killed",
        "killed",
        gloo("if rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\n" + SUM * 3),
        "failed",
        1,
        "killed",
    ),
    Case(
        "peer-killed-accelerate",
        "killed",
        gloo("if rank == 0:\n    os.kill(os.getpid(), signal.SIGKILL)\n" + SUM * 3),
        "failed",
        0,
        "killed",
        launcher="accelerate",
    ),
    Case(
        "late-root",
        "connection closed",
        gloo(
            "if rank == 1:\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "    dist.destroy_process_group()\n"
            "    end = time.monotonic() + 25\n"  # torchrun waits for 30
            "    other = f'{os.environ[\"PTX_NODE_DIR\"]}/rank-00000.exit.json'\n"
            "    while not os.path.exists(other) and time.monotonic() < end:\n"
            "        time.sleep(0.1)\n"
            "    raise ValueError('after its neighbours')\n" + SUM * 3
        ),
        "failed",
        1,
        None,
    ),
    Case(
        "peer-raised-accelerate",
        "connection closed",
        gloo("if rank == 1:\n    raise ValueError('bad batch 17')\n" + SUM * 3),
        "failed",
        1,
        None,
        launcher="accelerate",
    ),
    Case("killed", "killed", one("os.kill(os.getpid(), 9)"), "failed", 1, "killed"),
    Case(
        "killed-deepspeed",
        "killed",
        one("os.kill(os.getpid(), 9)"),
        "failed",
        1,
        "killed",
        launcher="deepspeed",
    ),
    Case(
        "segfault", "segfault", one("import ctypes\nctypes.string_at(0)"), "failed", 1, "segfault"
    ),
    Case(
        "segfault-accelerate",
        "segfault",
        one("import ctypes\nctypes.string_at(0)"),
        "failed",
        1,
        "segfault",
        launcher="accelerate",
    ),
    Case(
        "segfault-deepspeed",
        "segfault",
        one("import ctypes\nctypes.string_at(0)"),
        "failed",
        1,
        "segfault",
        launcher="deepspeed",
    ),
    Case(
        "segfault-stack",
        "segfault",
        one("import faulthandler, ctypes\nfaulthandler.enable()\nctypes.string_at(0)"),
        "failed",
        1,
        "segfault",
    ),
    Case("abort", "abort", one("os.abort()"), "failed", 1, "aborted"),
    Case("bus-error", "bus error", one("os.kill(os.getpid(), 7)"), "failed", 1, "bus-error"),
    Case(
        "memory-error",
        "host out of memory",
        one(
            "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
            "bytearray(1 << 34)"
        ),
        "out-of-memory",
        1,
        "host-memory-error",
    ),
    Case(
        "memory-error-accelerate",
        "host out of memory",
        one(
            "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
            "bytearray(1 << 34)"
        ),
        "out-of-memory",
        1,
        "host-memory-error",
        launcher="accelerate",
    ),
    Case(
        "torch-memory",
        "host out of memory",
        one("import torch\ntorch.empty(1 << 50)"),
        "out-of-memory",
        1,
        "host-memory-allocator",
    ),
    Case("no-module", "import", WAIT + "import flash_attn_9\n", "failed", ANY, "module-missing"),
    Case(
        "no-module-deepspeed",
        "import",
        WAIT + "import flash_attn_9\n",
        "failed",
        ANY,
        "module-missing",
        launcher="deepspeed",
    ),
    Case(
        "no-name",
        "import",
        WAIT + "from json import no_such_name\n",
        "failed",
        ANY,
        "import-name",
    ),
    Case(
        "no-library",
        "shared library",
        one("import ctypes\nctypes.CDLL('libcudart.so.99')"),
        "failed",
        1,
        "library-missing",
    ),
    Case("syntax", "syntax error", WAIT + "def broken(:\n", "failed", ANY, "syntax-error"),
    Case(
        "no-file",
        "file missing",
        one("open('/no/such/data.bin')"),
        "failed",
        1,
        "file-missing",
    ),
    Case(
        "no-permission",
        "permission",
        one("if os.getuid() == 0:\n    os.setuid(65534)\nopen('/root/out.bin', 'w')"),
        "failed",
        1,
        "permission-denied",
    ),
    Case(
        "no-space",
        "no space",
        one("file = open('/dev/full', 'wb', 0)\nfile.write(b'x')"),
        "failed",
        1,
        "no-space",
    ),
    Case(
        "no-space-deepspeed",
        "no space",
        one("file = open('/dev/full', 'wb', 0)\nfile.write(b'x')"),
        "failed",
        1,
        "no-space",
        launcher="deepspeed",
    ),
    Case(
        "too-large",
        "file size limit",
        one(
            "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
            "import tempfile\ntempfile.TemporaryFile(buffering=0).write(b'x' * 10)\n"
            "file = tempfile.TemporaryFile(buffering=0)\nfile.write(b'x' * 10)\nfile.write(b'y')"
        ),
        "failed",
        1,
        "file-too-large",
    ),
    Case(
        "open-files",
        "open files",
        one(
            "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
            "files = [open('/dev/null') for _ in range(30)]"
        ),
        "failed",
        1,
        "too-many-files",
    ),
    Case(
        "port-in-use",
        "port in use",
        WAIT
        + "import socket\nif rank == 0:\n    taken = socket.socket()\n    taken.bind(('', 0))\n"
        "    taken.listen()\n    import torch.distributed as dist\n"
        "    dist.TCPStore('127.0.0.1', taken.getsockname()[1], 2, True)\ntime.sleep(60)\n",
        "launch-error",
        0,
        "port-in-use",
    ),
    Case(
        "master-port-in-use",
        "port in use",
        GLOO + "start()\n",
        "launch-error",
        None,
        "port-in-use",
        launcher="deepspeed",
        listens=True,
    ),
    Case(
        "master-port-accelerate",
        "port in use",
        GLOO + "start()\n",
        "launch-error",
        None,
        "port-in-use",
        launcher="accelerate",
        listens=True,
    ),
    Case(
        "store-timeout",
        "rendezvous timeout",
        GLOO + "start(3, init_method=f'tcp://127.0.0.1:{int(os.environ[\"MASTER_PORT\"]) + 1}', "
        "world_size=3, rank=rank)\n",
        "launch-error",
        ANY,
        "rendezvous-timeout",
    ),
    Case(
        "no-such-host",
        "host name",
        GLOO + "if rank == 1:\n"
        "    start(3, init_method='tcp://no-such-host.invalid:29511', world_size=2, rank=1)\n"
        "time.sleep(60)\n",
        "launch-error",
        1,
        "host-unknown",
    ),
    Case(
        "head-is-itself",
        "host name",
        # As where a node's /etc/hosts gives the head's name an address of the node itself.
        GLOO + "import socket\nif rank == 1:\n    with socket.socket() as free:\n"
        "        free.bind(('', 0))\n        port = free.getsockname()[1]\n"
        "    start(3, init_method=f'tcp://localhost:{port}', world_size=2, rank=1)\n"
        "time.sleep(60)\n",
        "launch-error",
        1,
        "rendezvous-timeout",
    ),
    Case(
        "world-size",
        "world size",
        TRAINING.format(change="os.environ['WORLD_SIZE'] = '4'"),
        "failed",
        ANY,
        "world-size-differs",
    ),
    Case(
        "world-size-accelerate",
        "world size",
        # As a launcher does that falls back to as many separate trainings.
        TRAINING.format(change="os.environ.pop('WORLD_SIZE')"),
        "failed",
        ANY,
        "world-size-differs",
        launcher="accelerate",
    ),
    Case(
        "no-interface",
        "interface",
        GLOO + "os.environ['GLOO_SOCKET_IFNAME'] = 'nosuch0'\nstart()\n",
        "launch-error",
        ANY,
        "interface-missing",
    ),
    Case(
        "different-collectives",
        "different collectives",
        gloo(
            "if rank == 1:\n    dist.broadcast(torch.ones(1), 0)\nelse:\n    "
            + SUM
            + "time.sleep(3)"
        ),
        "failed",
        ANY,
        "collectives-differ",
        spec={"env": {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}},
    ),
    Case(
        "different-shapes",
        "different collectives",
        gloo("dist.all_reduce(torch.ones(1 + rank))\ntime.sleep(3)"),
        "failed",
        ANY,
        "collectives-differ",
        spec={"env": {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}},
    ),
    Case(
        "different-calls",
        "different collectives",
        gloo("if rank == 1:\n    dist.broadcast(torch.ones(1), 0)\n    " + SUM + SUM, seconds=3),
        "failed",
        ANY,
        "different-calls",
    ),
    Case(
        "uneven-steps",
        "left early",
        gloo(
            "for step in range(3 if rank == 1 else 5):\n    "
            + SUM
            + "dist.destroy_process_group()\n"
        ),
        "failed",
        1,
        "left-early",
    ),
    Case(
        "hang",
        "hang",
        gloo("if rank == 1:\n    time.sleep(60)\n" + SUM, seconds=8),
        "hang",
        1,
        "gloo-timeout",
    ),
    Case(
        "hang-4",
        "hang",
        gloo(
            "print('step 1')\nif rank == 2:\n    while True: time.sleep(1)\n" + SUM * 5, seconds=8
        ),
        "hang",
        2,
        "gloo-timeout",
        procs=4,
    ),
    Case(
        "hang-deepspeed",
        "hang",
        gloo("if rank == 1:\n    time.sleep(60)\n" + SUM, seconds=8),
        "hang",
        1,
        "gloo-timeout",
        launcher="deepspeed",
    ),
    Case(
        "hang-accelerate",
        "hang",
        gloo("if rank == 0:\n    time.sleep(60)\n" + SUM, seconds=8),
        "hang",
        0,
        "gloo-timeout",
        launcher="accelerate",
    ),
    Case(
        "barrier",
        "hang",
        gloo(
            "if rank == 1:\n    time.sleep(60)\n"
            "dist.monitored_barrier(timeout=datetime.timedelta(seconds=2))\n"
        ),
        "hang",
        1,
        "monitored-barrier",
    ),
    Case(
        "ddp-models-differ",
        "models differ",
        gloo(
            "model = torch.nn.Linear(2, 2, bias=rank == 0)\n"
            "torch.nn.parallel.DistributedDataParallel(model)\n"
        ),
        "failed",
        ANY,
        "models-differ",
    ),
    Case(
        "ddp-unused",
        "unused parameters",
        gloo(
            "parts = {key: torch.nn.Linear(2, 2) for key in 'ab'}\n"
            "model = torch.nn.ModuleDict(parts)\n"
            "class Net(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.parts = model\n"
            "    def forward(self, x):\n"
            "        return self.parts['a'](x)\n"
            "net = torch.nn.parallel.DistributedDataParallel(Net())\n"
            "for _ in range(2):\n    net(torch.ones(1, 2)).sum().backward()\n"
        ),
        "failed",
        ANY,
        "unused-parameters",
    ),
    Case(
        "nan",
        "NaN loss",
        one(
            "import torch\nwith torch.autograd.detect_anomaly():\n"
            "    x = torch.zeros(1, requires_grad=True)\n    (x.sqrt() * 0).backward()"
        ),
        "failed",
        1,
        "not-finite",
    ),
    Case(
        "nan-stop",
        "NaN loss",
        one("raise FloatingPointError('loss is nan at step 1200')"),
        "failed",
        1,
        "not-finite",
    ),
    Case(
        "worker-killed",
        "data worker",
        WAIT
        + """
import torch
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if rank == 1 and index == 3:
            os.kill(os.getpid(), 9)
        return index
if rank == 1:
    for _ in torch.utils.data.DataLoader(Data(), num_workers=1):
        pass
time.sleep(60)
""",
        "failed",
        1,
        "data-worker-killed",
    ),
    Case(
        "worker-raised",
        "data worker",
        WAIT
        + """
import torch
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        raise OSError(5, "Input/output error", "/data/shard-3")
if rank == 1:
    for _ in torch.utils.data.DataLoader(Data(), num_workers=1):
        pass
time.sleep(60)
""",
        "failed",
        1,
        "input-output-error",
    ),
    Case(
        "address-in-use",
        "port in use",
        one(
            "import socket\ntaken = socket.socket()\ntaken.bind(('', 0))\ntaken.listen()\n"
            "socket.socket().bind(('', taken.getsockname()[1]))"
        ),
        "failed",
        1,
        "address-in-use",
    ),
    Case(
        "connection-refused",
        "server away",
        one("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')"),
        "failed",
        1,
        "server-unreachable",
    ),
    Case(
        "usage",
        "arguments",
        WAIT + "import argparse\nargparse.ArgumentParser().parse_args(['--nonsense'])\n",
        "failed",
        ANY,
        "arguments-refused",
    ),
    Case(
        "setup-command",
        "setup line",
        "print('never runs')\n",
        "launch-error",
        None,
        "command-not-found",
        spec={"setup": ["nosuchmodule load cuda"]},
    ),
    Case(
        "setup-file",
        "setup line",
        "print('never runs')\n",
        "launch-error",
        None,
        "setup-file-missing",
        spec={"setup": ["source /no/such/venv/bin/activate"]},
    ),
    Case(
        "setup-false",
        "setup line",
        "print('never runs')\n",
        "launch-error",
        None,
        "setup-failed",
        spec={"setup": ["false"]},
    ),
    Case(
        "no-cuda",
        "CUDA missing",
        one("import torch\ntorch.ones(1).cuda()"),
        "failed",
        1,
        "cuda-not-built",
    ),
    Case(
        "no-nccl",
        "CUDA missing",
        GLOO + "dist.init_process_group('nccl')\n",
        "failed",
        ANY,
        "nccl-not-built",
    ),
    Case(
        "deepspeed-batch",
        "batch mismatch",
        """
import deepspeed, torch
model = torch.nn.Linear(2, 2)
deepspeed.initialize(model=model, config={
    "train_batch_size": 7, "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 1,
    "optimizer": {"type": "Adam", "params": {"lr": 0.1, "torch_adam": True}},
}, model_parameters=model.parameters())
""",
        "failed",
        ANY,
        "deepspeed-batch",
        launcher="deepspeed",
    ),
    Case(
        "shapes",
        "shape mismatch",
        one("import torch\ntorch.ones(2, 3) @ torch.ones(4, 5)"),
        "failed",
        1,
        "shape-mismatch",
    ),
    Case(
        "state-dict",
        "checkpoint mismatch",
        one(
            "import torch\nother = torch.nn.Linear(3, 2).state_dict()\n"
            "torch.nn.Linear(2, 2).load_state_dict(other)"
        ),
        "failed",
        1,
        "state-dict-mismatch",
    ),
    Case(
        "corrupt-file",
        "corrupt checkpoint",
        one(
            "import io, torch\nwhole = io.BytesIO()\ntorch.save(torch.ones(1000), whole)\n"
            "torch.load(io.BytesIO(whole.getvalue()[:2000]))"
        ),
        "failed",
        1,
        "checkpoint-corrupt",
    ),
    Case(
        "embedding",
        "index out of range",
        one("import torch\ntorch.nn.Embedding(4, 2)(torch.tensor([9]))"),
        "failed",
        1,
        "index-out-of-range",
    ),
    Case(
        "hub",
        "download",
        one(
            "os.environ['HF_HUB_OFFLINE'] = '1'\nimport transformers\n"
            "transformers.AutoConfig.from_pretrained('nobody/no-such-model')"
        ),
        "failed",
        1,
        "hub-unreachable",
    ),
    Case(
        "cleanup-fails",
        "connection closed",
        gloo(
            SUM + "if rank == 1:\n    try:\n        raise ValueError('bad batch 17')\n"
            "    finally:\n        " + SUM + "time.sleep(60)\n",
            seconds=3,
        ),
        "failed",
        1,
        None,
    ),
    Case(
        "weights-only",
        "corrupt checkpoint",
        one(
            "import io, pathlib, torch\nwhole = io.BytesIO()\n"
            "torch.save(pathlib.PurePosixPath('x'), whole)\nwhole.seek(0)\ntorch.load(whole)"
        ),
        "failed",
        1,
        "weights-only",
    ),
    Case(
        "not-executable",
        "cannot run",
        "print('never runs')\n",
        "launch-error",
        ANY,
        "cannot-run",
        spec={"entrypoint": {"command": ["./no-such-program"]}},
    ),
    Case(
        "interrupt",
        "interrupted",
        one("os.kill(os.getpid(), 2)\ntime.sleep(5)"),
        "failed",
        1,
        "interrupted",
    ),
)

IN_TESTS = (
    "value-error",
    "peer-raised-4",
    "late-root",
    "segfault",
    "memory-error",
    "no-space-deepspeed",
    "port-in-use",
    "hang",
    "setup-command",
    "value-error-accelerate",
    "no-module",
    "different-collectives",
)
"""Names of those that run with the tests; all of them: benchmarks/soak/why_corpus.py."""
