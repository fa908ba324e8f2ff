"""The edge of an entrypoint: errors become sentences, and their exit codes the process's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

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
    sys.exit(code)
