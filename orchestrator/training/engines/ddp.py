"""Every rank holds the whole model; gradients are averaged (Li et al. 2020, PyTorch DDP)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.training.engines.prepare import prepare_layers
from orchestrator.training.engines.torch_engine import TorchEngine
from orchestrator.training.objective import Objective
from orchestrator.training.precision import cast_parameters


class DdpEngine(TorchEngine):
    """Gradients travel once a step, with the last micro batch, while backward still runs."""

    parallel: DistributedDataParallel

    def wrap(self, objective: Objective) -> nn.Module:
        objective.to(self.rank.device)
        cast_parameters(objective, self.settings)
        prepare_layers(objective, self.settings)
        self.parallel = DistributedDataParallel(objective, gradient_as_bucket_view=True)
        return self.parallel

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self.parallel.no_sync()

    def describe(self) -> str:
        return f"ddp over {self.parallel.process_group.size()} ranks"
