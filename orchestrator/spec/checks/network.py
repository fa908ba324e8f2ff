"""Where the ranks meet."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec

_PORT = ("rendezvous", "port")
# /proc/sys/net/ipv4/ip_local_port_range of a Linux as it comes.
_EPHEMERAL = range(32768, 61000)
_DERIVED = "leave it out: ptx derives one from the job id"


def port_on_several_nodes(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.rendezvous.port == 0 and spec.resources.nodes > 1:
        yield Finding(
            _PORT,
            f"port 0 lets each of the {spec.resources.nodes} nodes pick another port, and they "
            f"would never meet",
            _DERIVED,
        )


def privileged_port(spec: JobSpec, _: Context) -> Iterator[Finding]:
    port = spec.rendezvous.port
    if port is not None and 0 < port < 1024:
        yield Finding(_PORT, f"only root may listen on port {port}", _DERIVED, "bad-value")


def ephemeral_port(spec: JobSpec, _: Context) -> Iterator[Finding]:
    port = spec.rendezvous.port
    if port in _EPHEMERAL:
        yield Finding(
            _PORT,
            f"Linux hands port {port} to whatever connects anywhere (32768 to 60999), so it may "
            f"be taken when the run starts",
            "choose one between 10000 and 29000, or leave it out",
            "risky-port",
            warning=True,
        )
