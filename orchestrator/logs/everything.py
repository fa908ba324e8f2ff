"""All that the ranks printed, written out: the plain path of `ptx logs`, for large logs."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.logs.composed import merge_composed
from orchestrator.logs.output import Output
from orchestrator.logs.parallel import write_slices
from orchestrator.logs.reader import LogReader
from orchestrator.logs.source import FileSource, can_label
from orchestrator.logs.text import TextLines

_WORTH = 64 * 1024 * 1024
"""Bytes of logs below which one process has it done as soon as several."""


def write_everything(readers: Sequence[LogReader], lines: TextLines, output: Output) -> bool:
    """Whether it was done: not where `lines` are coloured, or have long labels.

    To be used by a process with one thread. `readers` stand at the start. Raises UserError, and
    OSError where it cannot be written: BrokenPipeError where nobody reads on.
    """
    if not can_label(lines, len(readers)):
        return False
    is_worth_it = sum(reader.size() for reader in readers) > _WORTH
    if not (is_worth_it and write_slices(readers, lines, output)):
        for data in merge_composed([FileSource(reader, lines, output) for reader in readers]):
            output.write(data)
    return True
