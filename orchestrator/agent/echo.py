"""What a rank says because another failed or did not come: its host has nothing to do with it."""

from __future__ import annotations

import re

# `ptx why` knows them as rules with `echo = true` (orchestrator/diagnose/known), with causes and
# more places to look at; tests/diagnose/test_why_rules.py holds the two together.
_ECHOES = (
    r"gloo/[\w/]+\.\w+:\d+\] [^\n]*(?:Timed out waiting|Wait timeout for key|(?:Read|Write) error"
    r"|writev|Connection (?:closed by peer|reset by peer|refused)|Broken pipe|Socket closed)",
    r"(?:failed to pass|reached) monitoredBarrier",
    r"Watchdog caught collective operation timeout|dump signal due to a collective timeout",
    r"Some NCCL operations have failed or timed out|Heartbeat monitor timed out",
    r"watchdog got stuck",
    r"ncclRemoteError: |remote process exited|Connection closed by remote peer",
    r"^(?:BrokenPipe|ConnectionReset|ConnectionAborted)Error\b|^EOFError$|^KeyboardInterrupt:? ?$",
    r"^[\w.]*(?:Dist\w+|Runtime|OS)Error: (?:\[[^\]\n]*\] ?)?"
    r"(?:Connection (?:closed|reset) by peer|Broken pipe|failed to recv, got 0 bytes)",
    r"^[\w.]*(?:DistNetwork|DistStore|Runtime)Error: [^\n]*(?:Connection reset by peer|Broken pipe"
    r"|(?:recvValue|sendBytes|recvVector|recvBytes) failed on SocketImpl"
    r"|Timed out after \d+ seconds waiting for|[Ss]ocket (?:T|has t)imed? ?out|wait timeout after)",
    r"The client socket has timed out after|Timed out initializing process group in store based",
    r"Rendezvous(?:Timeout|Closed)Error|The connection to the C10d store has failed",
    r"retrieving ncclUniqueId from \[\d+\] via c10d|CheckpointException ranks:\s*dict_keys\(\[\d",
    r"^ImportError: \S*torch_extensions\S*/[\w.-]+\.so: cannot open shared object file",
)
_ECHO = re.compile("|".join(_ECHOES), re.MULTILINE)


def is_echo(message: str) -> bool:
    """Whether the words by which a rank ended speak of another rank: `Type: message`, as they
    stand in node_ended."""
    return bool(_ECHO.search(message))
