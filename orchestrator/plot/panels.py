"""Which pictures there are. Pure data."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["number", "rate", "bytes", "share", "percent"]
"""How numbers are written: 2.204, 16.5k, 1.5 GiB; a share of one and a percentage as 45%."""


@dataclass(frozen=True)
class Panel:
    """One picture: a quantity of all runs, over steps or time."""

    key: str
    title: str
    unit: str
    kind: Kind
    from_zero: bool = True
    """The axis begins at zero; a loss is looked at where it is."""
    top: float | None = None
    """Where the axis ends at least: a utilisation is read against 100 %."""
    can_log: bool = False
    beside: str = ""
    """Another quantity in the same picture, drawn as dots: the held-out loss."""
    brief: bool = False
    """On the terminal without being asked for."""
    instead_of: str = ""
    """Drawn only for runs that do not have that quantity."""


PANELS = (
    Panel(
        "loss",
        "Loss",
        "nats",
        "number",
        from_zero=False,
        can_log=True,
        beside="eval_loss",
        brief=True,
    ),
    Panel("tokens_per_s", "Throughput", "tokens/s", "rate", brief=True),
    Panel(
        "samples_per_s", "Throughput", "samples/s", "rate", brief=True, instead_of="tokens_per_s"
    ),
    Panel("gpu_util", "GPU utilisation", "%", "percent", top=100, brief=True),
    Panel("gpu_memory", "GPU memory in use", "a GPU", "bytes"),
    Panel("memory_bytes", "Peak memory", "rank 0", "bytes", brief=True),
    Panel("lr", "Learning rate", "", "number", can_log=True, brief=True),
    Panel("grad_norm", "Gradient norm", "before clipping", "number", can_log=True, brief=True),
    Panel("eval_accuracy", "Accuracy", "held-out", "share"),
    Panel("mfu", "Model FLOPs utilisation", "%", "share"),
    Panel("data_share", "Waiting for data", "share of the time", "share"),
    Panel("cpu_util", "CPU utilisation", "%", "percent", top=100),
)

NAMES = tuple(panel.key for panel in PANELS)


def drawable(present: Iterable[frozenset[str]], only: Collection[str] = ()) -> tuple[Panel, ...]:
    """The panels for which at least one of these runs, told by their quantities, has something.
    `only` these, where it names any: then each run that has the quantity is drawn."""
    runs = list(present)
    wanted = [replace(panel, instead_of="") for panel in PANELS if panel.key in only]
    return tuple(
        panel
        for panel in (wanted if only else PANELS)
        if any(panel.key in keys and panel.instead_of not in keys for keys in runs)
    )
