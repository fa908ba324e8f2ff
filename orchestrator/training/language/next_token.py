"""Next-token prediction with a causal language model of transformers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from orchestrator.training.batch import IGNORED
from orchestrator.training.objective import Objective


class NextToken(Objective):
    """Cross-entropy of each next token; `model` is what AutoModelForCausalLM makes."""

    unit = "token"

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        extras: dict[str, int],  # noqa: ARG002 - part of every objective's signature
        want_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """inputs["tokens"], targets: int64 (batch, time); the loss is in nats, summed.

        inputs["positions"], where there: int64 (batch, time), starting anew from 0 with each
        document of a packed sequence, which then attends to itself alone.
        """
        output = self.model(
            input_ids=inputs["tokens"], position_ids=inputs.get("positions"), use_cache=False
        )
        logits = output.logits
        loss = F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        return loss, logits if want_logits else None
