"""When sbatch refuses a job: its own sentence, and the key of the spec that it is about."""

from __future__ import annotations

import re

from orchestrator.errors import UserError
from orchestrator.schedulers.slurm_command import sentence


class SubmissionRefused(UserError):
    code = "submission-refused"


# The first row that matches what sbatch said names the keys to change and where to look.
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"account/partition combination",
        "change slurm.account or slurm.partition; "
        "`sacctmgr show associations user=$USER format=account,partition` lists yours",
    ),
    (r"group not permitted", "change slurm.partition to one that your group may use"),
    (r"partition", "change slurm.partition; `sinfo -s` lists the partitions"),
    (
        r"invalid account|specify an account",
        "change slurm.account; `sacctmgr show associations user=$USER` lists yours",
    ),
    (
        r"policy|association|limit.*(?:reached|exceeded)",
        "ask for less, or change slurm.qos or slurm.account",
    ),
    (r"qos", "change slurm.qos; `sacctmgr show qos format=name,maxwall` lists them"),
    (
        r"gres|gpu",
        "change resources.gpus_per_node, slurm.gpu_type, or how GPUs are asked for with "
        "slurm.gpu_flag; `sinfo -o '%N %G'` lists what the nodes have",
    ),
    (
        r"memory",
        "change resources.memory, or how memory is asked for with slurm.memory_flag; "
        "`sinfo -o '%N %m'` lists what the nodes have, in MB",
    ),
    (r"time limit|--time", "change resources.time_limit; `sinfo -o '%P %l'` lists the limits"),
    (r"feature", "change slurm.constraint; `sinfo -o '%N %f'` lists the features"),
    (r"reservation", "change slurm.reservation; `scontrol show reservation` lists them"),
    (r"node name", "change slurm.nodelist or slurm.exclude; `sinfo -N` lists the nodes"),
    (r"wckey", "change slurm.wckey, or leave it out"),
    (r"node count|more nodes", "change resources.nodes; `sinfo -s` lists how many there are"),
    (r"cpu count|processors", "change resources.cpus_per_task or resources.nodes"),
    (
        r"node configuration is not available",
        "no node has all that resources asks for; `sinfo -o '%P %N %c %m %G'` lists what they have",
    ),
    (
        r"job array",
        "make fewer runs with --array; `scontrol show config` has the largest as MaxArraySize",
    ),
    (r"option|dependency|mail", "change slurm.options"),
)
_FALLBACK = "what was asked for stands in the #SBATCH lines that --dry-run prints"


def refusal(stderr: str) -> SubmissionRefused:
    """The error for a submission that SLURM answered with no."""
    said = sentence(stderr).replace("Batch job submission failed: ", "")
    matching = (hint for pattern, hint in _HINTS if re.search(pattern, said, re.IGNORECASE))
    hint = next(matching, _FALLBACK)
    return SubmissionRefused(f"SLURM refused the job: {said or 'sbatch gave no reason'}", hint=hint)
