"""The configuration files of the test cluster, as text. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODES = ("node0", "node1", "node2", "node3")
GPUS_PER_NODE = 4
CPUS_PER_NODE = 16
MEMORY_MIB = 64_000
DATABASE_USER = "slurm"
DATABASE = "slurm_accounting"


@dataclass(frozen=True)
class Settings:
    """Where a cluster lies and which ports it takes (all on the loopback interface)."""

    root: Path
    port: int
    host: str
    """This machine's short host name, which the daemons compare with their configuration."""
    accounting: bool

    @property
    def conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.root / "run" / "munge.socket"

    @property
    def database_port(self) -> int:
        return self.port + 2

    @property
    def first_job(self) -> int:
        """Ranks meet at a port made of the job's number: clusters that run side by side give out
        other ones."""
        return 1 + 20 * max(0, self.port - 29700)

    def node_port(self, node: int) -> int:
        return self.port + 10 + node


def slurm_conf(s: Settings) -> str:
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={s.host} NodeAddr=127.0.0.1 Port={s.node_port(index)} "
        f"CPUs={CPUS_PER_NODE} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS_PER_NODE} "
        f"ThreadsPerCore=1 RealMemory={MEMORY_MIB} Gres=gpu:{GPUS_PER_NODE}"
        for index, name in enumerate(NODES)
    )
    members = ",".join(NODES)
    accounting = (
        "AccountingStorageType=accounting_storage/slurmdbd\n"
        "AccountingStorageHost=127.0.0.1\n"
        f"AccountingStoragePort={s.port + 1}\n"
        f"AccountingStoragePass={s.munge_socket}\n"
        "AccountingStorageTRES=gres/gpu"
        if s.accounting
        else "AccountingStorageType=accounting_storage/none"
    )
    return f"""ClusterName=ptx
SlurmctldHost={s.host}(127.0.0.1)
SlurmctldPort={s.port}
FirstJobId={s.first_job}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for its old credential to expire: two minutes by default.
AuthInfo=socket={s.munge_socket},cred_expire=5
StateSaveLocation={s.root}/state
SlurmdSpoolDir={s.root}/spool/%n
SlurmctldPidFile={s.root}/run/slurmctld.pid
SlurmdPidFile={s.root}/run/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
# More CPUs and memory than the machine has may be declared.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=15
MinJobAge=300
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=0
{accounting}
{nodes}
PartitionName=main Nodes={members} Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={members} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def gres_conf(s: Settings) -> str:
    return f"AutoDetect=off\nName=gpu File={s.root}/dev/gpu[0-{GPUS_PER_NODE - 1}]\n"


def slurmdbd_conf(s: Settings, password: str) -> str:
    return f"""AuthType=auth/munge
AuthInfo={s.munge_socket}
DbdHost={s.host}
DbdAddr=127.0.0.1
DbdPort={s.port + 1}
SlurmUser=root
PidFile={s.root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={s.database_port}
StorageUser={DATABASE_USER}
StoragePass={password}
StorageLoc={DATABASE}
"""


def database_grants(password: str) -> str:
    """Run by the database at each start, so it must not fail the second time."""
    return (
        f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
        f"CREATE USER IF NOT EXISTS '{DATABASE_USER}'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON {DATABASE}.* TO '{DATABASE_USER}'@'127.0.0.1';\n"
    )
