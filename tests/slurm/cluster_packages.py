"""The Debian packages of the test cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
}
ACCOUNTING_PACKAGES = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}
POLICY = Path("/usr/sbin/policy-rc.d")


class ClusterError(Exception):
    """One sentence; what the daemons said stands in their logs."""


def missing_packages(accounting: bool) -> list[str]:
    wanted = PACKAGES | (ACCOUNTING_PACKAGES if accounting else {})
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    return [package for tool, package in wanted.items() if shutil.which(tool, path=path) is None]


def install(accounting: bool) -> None:
    """apt-get what is missing, without starting the packages' own services."""
    missing = missing_packages(accounting)
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"needs root on Debian to install {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with services_kept_off():
        for argv in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            if done.returncode:
                raise ClusterError(f"`{' '.join(argv)}` failed with {done.returncode}")


@contextlib.contextmanager
def services_kept_off() -> Iterator[None]:
    """Debian's own switch against starting services at install (invoke-rc.d asks it)."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
