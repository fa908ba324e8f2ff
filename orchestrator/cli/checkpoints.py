"""`ptx checkpoints list | verify | convert | export | prune`."""

from __future__ import annotations

from orchestrator.cli.checkpoint_convert import convert_checkpoint
from orchestrator.cli.checkpoint_export import export_checkpoint
from orchestrator.cli.checkpoint_list import list_checkpoints
from orchestrator.cli.checkpoint_prune import prune_checkpoints
from orchestrator.cli.checkpoint_verify import verify_checkpoints

VERBS = {
    "list": (list_checkpoints, "Show them, and where the next start continues."),
    "verify": (verify_checkpoints, "Read every file again: sizes and hashes."),
    "convert": (convert_checkpoint, "Write one as whole tensors, whatever ranks saved it."),
    "export": (export_checkpoint, "Write one as a model that other programs load."),
    "prune": (prune_checkpoints, "Delete old ones."),
}
"""Name -> the command and one line of help."""


def checkpoints() -> None:
    """List, verify, convert, export and prune a run's checkpoints.

    \b
    Examples:
      ptx checkpoints list @last
      ptx checkpoints verify @last
      ptx checkpoints export @last --output my-model
    """
