"""The edge of an entrypoint: errors become sentences, and their exit codes the process's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch.distributed as dist

from orchestrator.errors import UserError

STOPPED = 143
"""Exit code after SIGTERM (128 + 15): training that did not finish is never a success."""


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Call `main` with the command line and exit with its code.

    A UserError ends in one line on stderr, which so is the last of the rank's log, and in the
    error's own exit code; anything else is a defect and keeps its traceback.
    """
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"{error.code}: {error.message}{hint}\n")
        code = error.exit_code
        _leave_group(code)
    sys.exit(code)


def _leave_group(code: int) -> None:
    """Exit at once where a process group was left open by the error.

    Closing it would wait for ranks that may be gone, and the interpreter's own end aborts now and
    then on gloo's threads (torch 2.13), with exit code -6 in the place of the error's.
    """
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
