"""submitit, handing over ptx's own script.

submitit's text embeds its interpreter, its paths and `--wckey=submitit`, and its jobs start from
a pickle that is renamed after sbatch: a client that dies in between leaves a job without one.
ptx's script starts the bundle's own agent, so there is nothing to pickle and nothing to lose.
"""

from __future__ import annotations

import re
from pathlib import Path

from submitit.core.utils import FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor


class ScriptExecutor(SlurmExecutor):
    """Submits one script that exists already.

    `folder` is submitit's working folder. Nothing in it is read again: the script that sbatch
    is given is the bundle's, and submitit's own copy of the text may be thrown away.
    """

    def __init__(self, folder: Path, script: Path, argv: tuple[str, ...]) -> None:
        super().__init__(folder)
        self._script = script
        self._argv = argv

    def submit_script(self) -> str:
        """The job id. Raises FailedJobError with what sbatch said, or FailedSubmissionError
        when its answer holds no job id."""
        return str(self._submit_command(str(self._script)).job_id)

    def _make_submission_file_text(self, command: str, uid: str) -> str:  # noqa: ARG002
        return self._script.read_text()

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:  # noqa: ARG002
        return list(self._argv)

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        """Of `sbatch --parsable`: `12` or `12;cluster`, below whatever a site's wrapper says."""
        text = string.decode(errors="replace") if isinstance(string, bytes) else string
        ids = re.findall(r"^(?:Submitted batch job )?(\d+)(?:;\S+)?\s*$", text, re.MULTILINE)
        if not ids:
            raise FailedSubmissionError(f"sbatch answered {text!r}, which holds no job id")
        return str(ids[-1])
