"""`ptx`: parse, call, and tell what went wrong."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import typer

from orchestrator.cli.app import build
from orchestrator.cli.errors import report, report_usage
from orchestrator.cli.output import emit, emit_json, note
from orchestrator.errors import UserError

INTERRUPTED = 130
CLOSED_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended."""
_STDERR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; only bugs of ptx raise."""
    _open_what_is_closed()
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    _print_anything()
    as_json = wants_json(arguments)
    try:
        code = _run(arguments, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; that must not fail again.
        _forget_stdout()
        return CLOSED_PIPE
    except OSError as error:  # a full disk below what was printed, an error's JSON included
        _forget_stdout()
        return report(_of_the_system(error), as_json=False)
    return code


def _forget_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_what_is_closed() -> None:
    """Whoever starts ptx with `>&-` or `2>&-`, as some cron jobs do, wants nothing of it, not an
    error. The low descriptors are taken as well, for children too: the next file that is opened
    would get one of them, and whatever prints would write into it."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")


def _nowhere(mode: str) -> TextIO:
    return io.TextIOWrapper(open(os.devnull, f"{mode}b"), encoding="utf-8")  # noqa: PTH123


def _print_anything() -> None:
    """A path or a log line may hold bytes that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def wants_json(arguments: Sequence[str]) -> bool:
    """Known before anything is parsed, so that a usage error is JSON too."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def _run(arguments: list[str], *, as_json: bool) -> int:
    if arguments[:1] == ["--version"]:
        return _version(as_json=as_json)
    try:
        code = _invoke(arguments)
    except UserError as error:
        return report(error, as_json=as_json)
    except typer.TyperException as error:
        return report_usage(error, as_json=as_json)
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a file that is gone, a permission that is missing
        return report(_of_the_system(error), as_json=as_json)
    except KeyboardInterrupt:
        if not as_json:
            note("interrupted")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _of_the_system(error: OSError) -> UserError:
    where = f" {error.filename}:" if error.filename is not None else ""
    return UserError(
        f"The system says:{where} {error.strerror or error}.",
        hint="Is the disk full, the folder gone, or somebody else's?",
    )


def _invoke(arguments: list[str]) -> object:
    """What typer's own main() does, less its ways with errors: it would make exit code 1, which
    says that a job failed, of a closed pipe."""
    application = build()
    with application.make_context("ptx", arguments) as context:
        return application.invoke(context)


def _version(*, as_json: bool) -> int:
    from orchestrator import __version__

    if as_json:
        emit_json({"version": __version__})
    else:
        emit(f"ptx {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
