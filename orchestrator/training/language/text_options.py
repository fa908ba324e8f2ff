"""What a text data set is made of and how it is cut, as a person chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.errors import UserError
from orchestrator.training.language.lines import BadUtf8
from orchestrator.training.language.sources import Format

Data = str | Sequence[str] | None


@dataclass(frozen=True)
class TextOptions:
    """What to read and how to cut it into samples."""

    data: Data = None
    """Files, folders or globs, a dataset on disk, or a hub name; None: Python's own source."""
    context: int = 1024
    """Length of a sample in tokens."""
    format: Format | None = None
    """None: by the files' extensions."""
    packed: bool | None = None
    """Several documents to a sample, each attending to itself alone; else each document is a
    sample, cut at `context`. None: packed, but plain text under the tokenizer `bytes` is one
    stream of bytes."""
    heldout: Data = None
    """Data to hold out; None: `heldout_share` of the documents."""
    heldout_share: float = 0.05
    columns: dict[str, str] = field(default_factory=dict)
    """Names of the columns that stand for `text`, `prompt` and `completion`, or `messages`."""
    split: str = "train"
    """Of a dataset with several."""
    subset: str | None = None
    """Of a hub dataset with several (its configuration)."""
    bad_utf8: BadUtf8 = "stop"
    cache: str | None = None
    """Folder for tokens; None: $PTX_CACHE, else $XDG_CACHE_HOME/ptx/tokens."""

    def __post_init__(self) -> None:
        if not 0 < self.heldout_share < 1:
            raise UserError(
                f"heldout_share is {self.heldout_share}, and must be between 0 and 1",
                hint="0.05 holds out a twentieth",
            )


def named(data: Data) -> str:
    """In words, for messages."""
    if data is None:
        return "Python's own source"
    return data if isinstance(data, str) else ", ".join(data)
