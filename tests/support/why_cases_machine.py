"""What the machine refuses or lacks: memory, files, data workers, servers, CUDA."""

from __future__ import annotations

from support.why_case import ANY, GLOO, WAIT, Case, one

CASES: tuple[Case, ...] = (
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
        "connection-refused",
        "server away",
        one("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')"),
        "failed",
        1,
        "server-unreachable",
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
)
