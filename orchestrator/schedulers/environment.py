"""The environment that a submission hands on, rid of the job it was typed in.

Inside an allocation, or below a launcher, dozens of variables describe *that* job. Handed on,
they override the new job's own options (SBATCH_*, SLURM_*), give every rank the old rank and
address, or make an MPI library take part in the outer job.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

_KEPT = frozenset(
    {
        "PTX_RUNS",  # where this person keeps runs
        "SLURM_CONF",  # which cluster is spoken to
        "SLURM_JWT",  # and as whom, where the site authenticates by token
    }
)
_PREFIXES = (
    "SLURM",  # SLURM_*, SLURMD_*
    "SBATCH_",
    "SRUN_",
    "SALLOC_",
    # Defaults of the query commands: SQUEUE_STATES would hide jobs, SACCT_FORMAT columns.
    "SQUEUE_",
    "SACCT_",
    "SCANCEL_",
    "SCONTROL_",
    "PMI_",
    "PMI2_",
    "PMIX_",
    "OMPI_COMM_",
    "OMPI_MCA_orte_",
    "OMPI_MCA_ess_",
    "MV2_COMM_",
    "MPI_LOCAL",  # MPI_LOCALRANKID, MPI_LOCALNRANKS; MPI_HOME is the person's
    "HYDI_",
    "MASTER_",
    "PET_",
    "TORCHELASTIC_",
    "ACCELERATE_",
    "PTX_",
)
_NAMES = frozenset(
    {
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "NODE_RANK",
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "ROLE_NAME",
        "ROLE_RANK",
        "ROLE_WORLD_SIZE",
        "CROSS_RANK",
        "CROSS_SIZE",
    }
)
_DEVICES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "ZE_AFFINITY_MASK",
    }
)


def clean_environment(env: Mapping[str, str], *, keep_devices: bool = True) -> dict[str, str]:
    """A copy without what belongs to a surrounding job, launcher or run.

    `keep_devices=False` also drops the choice of devices, where a scheduler is to make it.
    """
    dropped = _NAMES if keep_devices else _NAMES | _DEVICES
    return {
        name: value
        for name, value in env.items()
        if name in _KEPT or not (name in dropped or name.startswith(_PREFIXES))
    }


@contextmanager
def cleaned_os_environ() -> Iterator[None]:
    """os.environ itself cleaned, for a library that lets its children inherit it.

    Not for use beside other threads that read the environment.
    """
    with withheld(os.environ.keys() - clean_environment(os.environ, keep_devices=False).keys()):
        yield


@contextmanager
def withheld(names: Iterable[str]) -> Iterator[None]:
    """os.environ itself without these names, which no child inherits then.

    Not for use beside other threads that read the environment.
    """
    taken = {name: os.environ.pop(name) for name in set(names) & os.environ.keys()}
    try:
        yield
    finally:
        os.environ.update(taken)
