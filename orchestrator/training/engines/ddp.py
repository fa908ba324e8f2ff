"""Every rank holds the whole model; gradients are averaged (Li et al. 2020, PyTorch DDP)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.training.agreement import together
from orchestrator.training.engines.prepare import prepare_layers
from orchestrator.training.engines.sharding import check_backend
from orchestrator.training.engines.torch_engine import TorchEngine, statistics_of
from orchestrator.training.errors import PlanMismatch
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
        # Only what training changes: rotary tables need not travel at every forward pass. Set
        # here, where all versions of PyTorch have it, and after buffers were made equal once.
        self.parallel.broadcast_buffers = bool(statistics_of(objective))
        with together(self.rank):
            check_backend(self.rank.device)
            self._check_size()
        return self.parallel

    def _check_size(self) -> None:
        size = self.parallel.process_group.size()
        if size != self.layout.data_size:
            raise PlanMismatch(
                f"gradients were planned to be averaged over {self.layout.data_size} ranks, and "
                f"they are over {size}"
            )

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self.parallel.no_sync()

    def in_buckets(self) -> bool:
        return True

    def describe(self) -> str:
        return f"ddp over {self.parallel.process_group.size()} ranks"
