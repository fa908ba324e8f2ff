"""What models, losses and checkpoints go wrong with."""

from __future__ import annotations

from support.why_case import ANY, Case, gloo, one

CASES: tuple[Case, ...] = (
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
)
