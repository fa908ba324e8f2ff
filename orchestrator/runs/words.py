"""The sentences in which a run's state is told."""

from __future__ import annotations

import re
import signal

from orchestrator.runs.state import Failure, NodeState

_LAUNCH_REASONS = {
    "launch-failed": "the launcher ended without starting every rank",
    "setup-failed": "launch.sh failed before the launcher started",
    "check-failed": "the node cannot run this job",
}
_UNCAUGHT = 1
"""What Python exits with for an exception that nobody caught."""
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:: |$)")


def is_launch_reason(reason: str) -> bool:
    return reason in _LAUNCH_REASONS


def launch_error(node: NodeState) -> str:
    words = node.message or (node.failure.message if node.failure else "")
    return sentence(f"node {node.node}: {words or _LAUNCH_REASONS[node.reason]}")


def blame(failure: Failure) -> str:
    """`Rank 1 on node 0 exited with 1: ValueError: bad batch`, without a full stop."""
    end = exit_words(failure.code, failure.signal)
    return f"rank {failure.rank} on node {failure.node} {end}{_said(failure)}"


def what_it_said(failure: Failure) -> str:
    """The same for a column of a table, without who said it. An exception tells as much as the
    code that it leaves; the last line of a rank that left without one may say nothing of its
    end."""
    if tells_its_end(failure.code, failure.message):
        return sentence(failure.message)
    return sentence(f"a rank {exit_words(failure.code, failure.signal)}{_said(failure)}")


def _said(failure: Failure) -> str:
    only_how = says_only_how(failure.message, failure.code, failure.signal)
    return "" if only_how else f": {failure.message}"


def tells_its_end(code: int | None, message: str) -> bool:
    """An exception that nobody caught."""
    return code == _UNCAUGHT and _EXCEPTION.match(message) is not None


def says_only_how(message: str, code: int | None, signal_number: int | None) -> bool:
    """Of a rank that left no words: the agent's message is its exit once more."""
    how = {"", f"exit code {code}"}
    if signal_number is not None:
        how.add(f"ended by {_signal_name(signal_number)}")
    return (message or "") in how


def exit_words(code: int | None, signal_number: int | None = None) -> str:
    if signal_number is None and code is not None and code < 0:
        signal_number = -code
    if signal_number is not None:
        return f"was killed by {_signal_name(signal_number)}"
    return "ended without an exit code" if code is None else f"exited with {code}"


def exit_name(code: int) -> str:
    """`0`, `1`, `SIGKILL`."""
    return _signal_name(-code) if code < 0 else str(code)


def sentence(text: str) -> str:
    """One line with a capital letter and a full stop."""
    line = printable(" ".join(text.split()))
    line = line[:1].upper() + line[1:]
    return line if line.endswith((".", "!", "?")) else f"{line}."


def clause(text: str) -> str:
    """A sentence as a part of another one; a name in capitals stays."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def printable(text: str) -> str:
    """What a rank or a file said must not steer the terminal that shows it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
