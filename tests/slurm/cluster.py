#!/usr/bin/env python3
"""A real SLURM on this machine: four nodes, four fake GPUs each, accounting, preemption.

    python tests/slurm/cluster.py install     apt-get what is missing (root, Debian)
    eval "$(python tests/slurm/cluster.py start)"
    sinfo; srun -N2 --gres=gpu:2 hostname
    python tests/slurm/cluster.py stop        end every daemon, leave nothing

Everything lies in one folder: --dir, else $PTX_SLURM_DIR, else /tmp/ptx-slurm.
Ports are --port (else $PTX_SLURM_PORT, else 29700) to 13 above it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cluster_config as config
import cluster_processes as processes
from cluster_packages import ClusterError, install, missing_packages

HOSTS = Path("/etc/hosts")


class Cluster:
    def __init__(self, root: Path, port: int = 29700, *, accounting: bool = True) -> None:
        self.root = root.absolute()
        host = socket.gethostname().partition(".")[0]
        self.settings = config.Settings(self.root, port, host, accounting)

    @classmethod
    def at(cls, root: Path) -> Cluster:
        """The cluster that was started in this folder."""
        saved = json.loads((root / "settings.json").read_text())
        return cls(root, saved["port"], accounting=saved["accounting"])

    @property
    def conf(self) -> Path:
        return self.settings.conf

    def environment(self) -> dict[str, str]:
        """The caller's, pointing at this cluster and at no other one or allocation."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        system = f"{outside.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
        return {**outside, "PATH": system, "SLURM_CONF": str(self.conf)}

    def run(self, *argv: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    # Start

    def start(self) -> None:
        """Start what is not running yet and wait until the whole cluster answers."""
        self._check_prerequisites()
        self.root.mkdir(mode=0o755, exist_ok=True)
        if self.root.lstat().st_uid != os.geteuid() or self.root.is_symlink():
            raise ClusterError(f"{self.root} belongs to somebody else; choose another --dir")
        with self._lock():
            self._prepare()
            self._spawn("munged", self._munged())
            self._wait("munge", self.settings.munge_socket.is_socket)
            if self.settings.accounting:
                self._start_accounting()
            self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
            for node in config.NODES:
                self._spawn(node, ["slurmd", "-D", "-N", node, "-f", str(self.conf)])
            self._wait("nodes", self._nodes_are_ready, timeout=60)
            if self.settings.accounting:
                self._wait("sacct", lambda: self.run("sacct", "-n", "-X").returncode == 0)

    def _check_prerequisites(self) -> None:
        if os.geteuid() != 0:
            raise ClusterError("the test SLURM runs as root: its daemons start other users' jobs")
        if missing := missing_packages(self.settings.accounting):
            raise ClusterError(f"not installed: {' '.join(missing)}; run `cluster.py install`")

    def _prepare(self) -> None:
        saved = self.root / "settings.json"
        wanted = {"port": self.settings.port, "accounting": self.settings.accounting}
        if self._running() and json.loads(saved.read_text()) != wanted:
            raise ClusterError(f"a cluster with other settings runs in {self.root}; stop it first")
        for folder in ("etc", "run", "state", "log", "spool", "dev", "pids"):
            (self.root / folder).mkdir(mode=0o755, exist_ok=True)
        for node in config.NODES:
            (self.root / "spool" / node).mkdir(mode=0o755, exist_ok=True)
        for index in range(config.GPUS_PER_NODE):
            device = self.root / "dev" / f"gpu{index}"
            if not device.exists():
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        self._write("etc/munge.key", secrets.token_bytes(128), once=True)
        self._write("etc/database-password", secrets.token_hex(16).encode(), once=True)
        password = (self.root / "etc/database-password").read_text()
        self._write("etc/slurmdbd.conf", config.slurmdbd_conf(self.settings, password).encode())
        self._write("etc/grants.sql", config.database_grants(password).encode())
        self._write("etc/slurm.conf", config.slurm_conf(self.settings).encode(), mode=0o644)
        self._write("etc/gres.conf", config.gres_conf(self.settings).encode(), mode=0o644)
        self._write("settings.json", json.dumps(wanted).encode(), mode=0o644)
        self._name_hosts()

    def _write(self, name: str, data: bytes, *, mode: int = 0o600, once: bool = False) -> None:
        path = self.root / name
        if once and path.exists():
            return
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)

    def _munged(self) -> list[str]:
        return [
            "munged",
            "--foreground",
            "--force",  # the folder lies below /tmp, which munge finds too open
            f"--key-file={self.root}/etc/munge.key",
            f"--socket={self.settings.munge_socket}",
            f"--pid-file={self.root}/run/munged.pid",
            f"--seed-file={self.root}/run/munge.seed",
            "--num-threads=2",
        ]

    def _start_accounting(self) -> None:
        data = self.root / "database"
        if not (data / "mysql").is_dir():
            argv = [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                "--user=root",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ]
            made = self.run(*argv, timeout=120)
            if made.returncode:
                raise ClusterError(f"mariadb-install-db failed: {made.stderr.strip()[-500:]}")
        self._spawn("mariadbd", self._mariadbd(data))
        self._wait("database", self._database_listens, timeout=60)
        self._spawn("slurmdbd", ["slurmdbd", "-D"])
        self._wait("slurmdbd", self._cluster_is_registered, timeout=60)

    def _mariadbd(self, data: Path) -> list[str]:
        return [
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={self.root}/run/database.socket",
            f"--pid-file={self.root}/run/mariadbd.pid",
            f"--init-file={self.root}/etc/grants.sql",
            "--bind-address=127.0.0.1",
            f"--port={self.settings.database_port}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=8M",
            "--innodb-lock-wait-timeout=900",
        ]

    def _spawn(self, name: str, argv: Sequence[str]) -> None:
        record = self._record(name)
        if processes.running_pid(record) is None:
            log = self.root / "log" / f"{name}.log"
            processes.spawn_detached(argv, record, log, self.environment())

    def _wait(self, what: str, ready: processes.Condition, timeout: float = 30) -> None:
        if not processes.wait_until(ready, timeout):
            where = f"see {self.root}/log"
            raise ClusterError(f"no {what} after {timeout:.0f} s; {where}\n{self._tails()}")

    def _cluster_is_registered(self) -> bool:
        self.run("sacctmgr", "-i", "add", "cluster", "ptx")
        return "ptx" in self.run("sacctmgr", "-n", "-P", "show", "cluster").stdout

    def _nodes_are_ready(self) -> bool:
        """Up and answering; a node that runs somebody's job counts as well."""
        states = self.node_states()
        return set(states) == set(config.NODES) and all(
            state in {"idle", "mixed", "allocated", "completing"} for state in states.values()
        )

    def _database_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.settings.database_port)) == 0

    def _tails(self) -> str:
        logs = sorted((self.root / "log").glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-600:]}" for log in logs)

    # Look and disturb

    def node_states(self) -> dict[str, str]:
        """Base state of each node, lower case, with SLURM's suffixes (`*` not responding)."""
        rows = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N|%T").stdout.split()
        return dict(row.split("|", 1) for row in rows)

    def is_whole(self) -> bool:
        """Whether no node is dead."""
        return set(config.NODES) <= set(self._running())

    def is_empty(self, within: float = 0) -> bool:
        """Whether every node is idle and no job is left, after at most so many seconds."""

        def empty() -> bool:
            states = self.node_states()
            idle = set(states) == set(config.NODES) and set(states.values()) == {"idle"}
            return idle and not self.run("squeue", "-h").stdout.strip()

        return processes.wait_until(empty, within)

    def kill_node(self, node: str) -> None:
        """SIGKILL one slurmd, as when a machine dies. The processes of its jobs go on: SLURM
        says NODE_FAIL after SlurmdTimeout, and `start` brings the node back."""
        pid = processes.running_pid(self._record(node))
        if pid is None:
            raise ClusterError(f"{node} does not run")
        processes.send(pid, signal.SIGKILL)
        self._wait(f"end of {node}", lambda: processes.running_pid(self._record(node)) is None)

    def is_up(self) -> bool:
        return bool(self._running()) and self._nodes_are_ready()

    def _names(self) -> list[str]:
        """In the order in which they are to be ended."""
        return [*config.NODES, "slurmctld", "slurmdbd", "mariadbd", "munged"]

    def _record(self, name: str) -> Path:
        return self.root / "pids" / name

    def _running(self) -> list[str]:
        return [n for n in self._names() if processes.running_pid(self._record(n)) is not None]

    # Stop

    def stop(self) -> None:
        """End jobs and daemons and remove the folder. Nothing running is no error."""
        if not self.root.is_dir():
            return
        with self._lock():
            if "slurmctld" in self._running():
                self._cancel_jobs()
            for name in self._names():
                processes.end(self._record(name))
            self._sweep()
            self._unname_hosts()
            shutil.rmtree(self.root)

    def _cancel_jobs(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            for state in ("PENDING", "RUNNING"):
                self.run("scancel", f"--state={state}")
            # Jobs of a dead node never leave the queue.
            patience = 20 if self.is_whole() else 3
            processes.wait_until(lambda: not self.run("squeue", "-h").stdout.strip(), patience)

    def _sweep(self) -> None:
        """What outlived its slurmd: a job's processes, and the step daemons above them."""
        ours = os.fsencode(self.conf)

        def of_a_job(pid: int) -> bool:
            env = processes.environment(pid)
            return env.get(b"SLURM_CONF") == ours and b"SLURM_JOB_ID" in env

        def left() -> set[int]:
            jobs = {pid for pid in processes.all_pids() if of_a_job(pid)} - {os.getpid()}
            steps = {processes.parent(pid) for pid in jobs}
            return jobs | {s for s in steps if processes.command(s).startswith(b"slurmstepd")}

        for pid in left():
            processes.send(pid, signal.SIGKILL)
        processes.wait_until(lambda: not left(), 5)

    # /etc/hosts

    @property
    def _hosts_line(self) -> str:
        return f"127.0.0.1 {' '.join(config.NODES)} # ptx test SLURM in {self.root}\n"

    def _name_hosts(self) -> None:
        with _locked(HOSTS):  # clusters side by side share it
            text = HOSTS.read_text()
            if self._hosts_line not in text:
                end = "" if text.endswith("\n") or not text else "\n"
                HOSTS.write_text(text + end + self._hosts_line)

    def _unname_hosts(self) -> None:
        with _locked(HOSTS):
            text = HOSTS.read_text()
            if self._hosts_line in text:
                HOSTS.write_text(text.replace(self._hosts_line, ""))

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        """Two test runs may start or stop the same cluster at once."""
        path = self.root / "lock"
        path.touch()
        return _locked(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["install", "start", "stop", "status", "kill-node"])
    parser.add_argument("node", nargs="?", choices=config.NODES, help="for kill-node")
    folder = os.environ.get("PTX_SLURM_DIR", "/tmp/ptx-slurm")
    parser.add_argument("--dir", type=Path, default=Path(folder))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PTX_SLURM_PORT", "29700")))
    parser.add_argument("--no-accounting", dest="accounting", action="store_false")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    cluster = Cluster(args.dir, args.port, accounting=args.accounting)
    started = time.monotonic()
    try:
        if args.command == "install":
            install(args.accounting)
        elif args.command == "start":
            cluster.start()
            say(f"export SLURM_CONF={cluster.conf}")
            warn(f"ready after {time.monotonic() - started:.1f} s")
        elif args.command == "stop":
            cluster.stop()
        elif args.command == "kill-node":
            if args.node is None:
                raise ClusterError("kill-node wants the name of a node")
            cluster.kill_node(args.node)
        else:
            return show(cluster)
    except ClusterError as error:
        warn(f"cluster.py: {error}")
        return 1
    return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def warn(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def show(cluster: Cluster) -> int:
    if not cluster.is_up():
        warn(f"no cluster runs in {cluster.root}")
        return 1
    say(f"export SLURM_CONF={cluster.conf}")
    for node, state in cluster.node_states().items():
        say(f"# {node} {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
