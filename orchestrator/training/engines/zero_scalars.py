"""The numbers beside DeepSpeed's tensors: steps of the optimizer, loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.training.checkpoint.optimizer_state import set_steps_taken, steps_taken


def zero_scalars(engine: Any) -> dict[str, Any]:
    """As `Engine.scalars` says; `engine` is a DeepSpeedEngine."""
    found: dict[str, Any] = {
        "steps": steps_taken(engine.basic_optimizer),
        "skipped": int(engine.skipped_steps),
    }
    scaler = _dynamic_scaler(engine)
    if scaler is not None:
        found["loss_scale"] = float(scaler.cur_scale)
        found["clean_steps"] = _steps_since_change(scaler)
        found["hysteresis"] = scaler.cur_hysteresis
    return found


def set_zero_scalars(engine: Any, scalars: Mapping[str, Any]) -> None:
    """Put back what is there: an engine of another kind or precision has saved less."""
    if scalars.get("steps") is not None:
        set_steps_taken(engine.basic_optimizer, scalars["steps"])
    engine.skipped_steps = scalars.get("skipped", 0)
    scaler = _dynamic_scaler(engine)
    if scaler is not None and "loss_scale" in scalars:
        scaler.cur_scale = scalars["loss_scale"]
        # Only the distance of the two matters to the scaler.
        scaler.last_overflow_iter = -1
        scaler.cur_iter = scalars.get("clean_steps", 0)
        scaler.cur_hysteresis = scalars.get("hysteresis", scaler.delayed_shift)


def _steps_since_change(scaler: Any) -> int:
    """The scaler itself counts from the last overflow, and grows in the step after each
    `scale_window` of them."""
    since_overflow: int = scaler.cur_iter - scaler.last_overflow_iter - 1
    return (since_overflow - 1) % scaler.scale_window + 1 if since_overflow else 0


def _dynamic_scaler(engine: Any) -> Any | None:
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    return scaler if getattr(scaler, "dynamic", False) else None
