"""Names that a spec may not set: they would not arrive, or would break the launch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from orchestrator.errors import UserError

_PTX_AND_LAUNCHER = re.compile(
    r"""(PTX|PET|MASTER|ACCELERATE|FSDP|PARALLELISM_CONFIG|TORCHELASTIC
        |PMI|PMIX|OMPI_COMM|MV2_COMM|SLURM|SLURMD|SRUN|SBATCH)_\w*
      | ((LOCAL|GROUP|ROLE|CROSS|NODE)_)?RANK
      | ((LOCAL|GROUP|ROLE)_)?WORLD_SIZE
      | (LOCAL|CROSS)_SIZE | ROLE_NAME | CUDA_VISIBLE_DEVICES""",
    re.VERBOSE,
)
# Read-only in bash, or computed by it, so that no value given to it lasts.
_BASH = re.compile(
    r"""BASHOPTS | BASHPID | BASH_(ARG[CV]|COMMAND|LINENO|SOURCE|SUBSHELL|VERSINFO)
      | DIRSTACK | EPOCHREALTIME | EPOCHSECONDS | EUID | FUNCNAME | GROUPS | HISTCMD | IFS
      | LINENO | OLDPWD | OPTIND | PIPESTATUS | POSIXLY_CORRECT | PPID | PWD | RANDOM | SECONDS
      | SHELLOPTS | SHLVL | SRANDOM | UID | _""",
    re.VERBOSE,
)


def check_names(names: Iterable[str], where: str) -> None:
    """Raise UserError for the first name that belongs to ptx, the launcher or bash."""
    for name in names:
        if _PTX_AND_LAUNCHER.fullmatch(name):
            owner = "ptx and the launcher set it on every rank"
        elif _BASH.fullmatch(name):
            owner = "bash keeps that name for itself"
        else:
            continue
        raise UserError(f"{where} names {name}, but {owner}", hint=f"leave {name} out")
