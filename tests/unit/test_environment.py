import os

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.schedulers.environment import clean_environment, cleaned_os_environ

FOREIGN_NAMES = """
    SLURM_JOB_ID SLURM_NODEID SLURM_CPU_BIND SLURMD_NODENAME SLURM_GPUS_PER_NODE
    SBATCH_PARTITION SRUN_CPUS_PER_TASK SALLOC_PARTITION SQUEUE_STATES SACCT_FORMAT
    PMI_RANK PMIX_NAMESPACE PMI2_FD OMPI_COMM_WORLD_RANK MPI_LOCALRANKID MV2_COMM_WORLD_RANK
    MASTER_ADDR MASTER_PORT RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK
    PET_NNODES TORCHELASTIC_RUN_ID PTX_RUN_ID PTX_MARK PTX_RUN_DIR ACCELERATE_USE_CPU
"""
KEPT_NAMES = """
    PATH HOME SLURM_CONF SLURM_JWT PTX_RUNS OMP_NUM_THREADS MPI_HOME RANKING MASTERS
    CUDA_VISIBLE_DEVICES NCCL_DEBUG HF_HOME
"""


def test_nothing_of_a_surrounding_job_is_handed_on():
    assert clean_environment(dict.fromkeys(FOREIGN_NAMES.split(), "1")) == {}


def test_what_is_the_persons_own_stays():
    env = {name: f"value of {name}" for name in KEPT_NAMES.split()}
    assert clean_environment(env) == env


def test_devices_are_dropped_where_the_scheduler_chooses_them():
    env = {"CUDA_VISIBLE_DEVICES": "0", "ROCR_VISIBLE_DEVICES": "0", "HOME": "/"}
    assert clean_environment(env, keep_devices=False) == {"HOME": "/"}


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_cleaning_twice_changes_nothing_more(env):
    once = clean_environment(env)
    assert clean_environment(once) == once
    assert once.items() <= env.items()


def test_the_process_environment_is_clean_inside_and_restored_after(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_CONF", "/somewhere")
    before = dict(os.environ)
    try:
        with cleaned_os_environ():
            inside = dict(os.environ)
            raise ValueError
    except ValueError:
        pass
    assert "SLURM_JOB_ID" not in inside
    assert "CUDA_VISIBLE_DEVICES" not in inside
    assert inside["SLURM_CONF"] == "/somewhere"
    assert dict(os.environ) == before
