"""What launch.sh does on a node, seen from the rank that it starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from launching import Node, register_plain


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    register_plain(monkeypatch)
    return Node(tmp_path)


def slurm(node: Node, **env: str) -> Node:
    allocation = {
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "head,other",
        "SLURMD_NODENAME": "head",
    }
    node.env |= allocation | env
    return node


def program(node: Node, name: str, script: str) -> None:
    """Puts a program of that name first on the node's PATH."""
    folder = node.folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)
    node.env["PATH"] = f"{folder}:{node.env.get('PATH', '/usr/bin:/bin')}"


ONE = {"scheduler": "slurm", "resources": {"gpus_per_node": 0}}
TWO = {"scheduler": "slurm", "resources": {"gpus_per_node": 0, "nodes": 2}}


def test_a_local_rank_meets_the_others_on_this_machine_at_the_agents_port(node: Node) -> None:
    env = node.launch({}).seen["env"]
    assert env["PTX_HEAD_ADDR"] == env["MASTER_ADDR"] == env["PTX_LOCAL_ADDR"] == "127.0.0.1"
    assert env["PTX_HEAD_PORT"] == env["MASTER_PORT"] == "23456"
    assert env["PTX_IS_HEAD"] == "true"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["FROM_LAUNCHER"] == "0"


def test_what_outer_launchers_and_the_scheduler_left_does_not_reach_a_rank(node: Node) -> None:
    stray = [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "GROUP_RANK",
        "MASTER_WHATEVER",
        "PET_NNODES",
        "ACCELERATE_USE_FSDP",
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "SLURMD_NODENAME",
        "SRUN_DEBUG",
        "PMI_RANK",
        "OMPI_COMM_WORLD_RANK",
        "TORCHELASTIC_RUN_ID",
    ]
    node.env |= dict.fromkeys(stray, "7") | {"NCCL_DEBUG": "INFO", "GROUP": "kept"}
    env = node.launch({}).seen["env"]
    assert [name for name in stray if name in env] == []
    assert env["NCCL_DEBUG"] == "INFO"
    assert env["GROUP"] == "kept"


def test_threads_are_the_cores_of_a_rank_unless_the_spec_says_otherwise(node: Node) -> None:
    shared = {"resources": {"gpus_per_node": 0, "procs_per_node": 2}}
    assert node.launch(shared).seen["env"]["OMP_NUM_THREADS"] == "3"


def test_the_specs_own_thread_count_wins(node: Node) -> None:
    env = node.launch({"env": {"OMP_NUM_THREADS": "11"}}).seen["env"]
    assert env["OMP_NUM_THREADS"] == "11"


@pytest.mark.parametrize(("cpus", "threads"), [("64", "8"), ("4", "1")])
def test_threads_come_from_slurm_where_the_spec_is_silent(
    node: Node, cpus: str, threads: str
) -> None:
    eight = {"scheduler": "slurm", "resources": {"gpus_per_node": 8}}
    env = slurm(node, SLURM_CPUS_PER_TASK=cpus).launch(eight).seen["env"]
    assert env["OMP_NUM_THREADS"] == threads
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"


@pytest.mark.parametrize(
    ("job", "attempt", "port"),
    [
        ("4711", "0", "14711"),
        ("4711", "1", "26454"),  # far from where the jobs 4712 and 4713 begin
        ("4711", "2", "19197"),
        ("18999", "1", "21742"),
        ("95001", "0", "10001"),
    ],
)
def test_the_port_follows_from_job_and_attempt(
    node: Node, job: str, attempt: str, port: str
) -> None:
    env = slurm(node, SLURM_JOB_ID=job, PTX_ATTEMPT=attempt).launch(ONE).seen["env"]
    assert env["MASTER_PORT"] == port


def test_a_port_of_the_spec_is_taken(node: Node) -> None:
    env = slurm(node).launch(ONE | {"rendezvous": {"port": 12345}}).seen["env"]
    assert env["MASTER_PORT"] == "12345"


def test_the_interface_of_the_spec_is_told_to_nccl_and_gloo(node: Node) -> None:
    env = node.launch({"rendezvous": {"interface": "l"}}).seen["env"]
    assert env["NCCL_SOCKET_IFNAME"] == "l"
    assert env["GLOO_SOCKET_IFNAME"] == "lo"  # gloo does not complete names


def test_excluded_interfaces_are_for_nccl_alone(node: Node) -> None:
    env = node.launch({"rendezvous": {"interface": "^docker0"}}).seen["env"]
    assert env["NCCL_SOCKET_IFNAME"] == "^docker0"
    assert "GLOO_SOCKET_IFNAME" not in env


class TestHeadAddress:
    """Two nodes. The clusters are played by a scontrol and a getent of the test."""

    def cluster(self, node: Node, getent: str, node_addr: str, rank: int) -> None:
        slurm(node, SLURM_NODEID=str(rank), SLURMD_NODENAME=["head", "other"][rank])
        program(
            node,
            "scontrol",
            f'[[ "$2" == hostnames ]] && {{ echo head; echo other; exit; }}\n'
            f'echo "NodeName=head Arch=x NodeAddr={node_addr} NodeHostName=head Port=1"',
        )
        program(node, "getent", getent)

    def test_the_name_where_it_means_another_machine(self, node: Node) -> None:
        self.cluster(node, "echo 10.0.0.1 STREAM head", "10.9.9.9", 1)
        env = node.launch(TWO).seen["env"]
        assert (env["PTX_HEAD_ADDR"], env["PTX_LOCAL_ADDR"]) == ("head", "other")
        assert env["PTX_IS_HEAD"] == "false"

    @pytest.mark.parametrize("getent", ["echo 127.0.1.1 STREAM head", "exit 2"])
    def test_slurms_address_where_the_name_means_this_machine_or_nothing(
        self, node: Node, getent: str
    ) -> None:
        self.cluster(node, f'[[ "$2" == 10.* ]] && {{ echo "$2"; exit; }}\n{getent}', "10.0.0.1", 1)
        assert node.launch(TWO).seen["env"]["PTX_HEAD_ADDR"] == "10.0.0.1"

    def test_this_machine_where_slurm_itself_says_so(self, node: Node) -> None:
        self.cluster(node, "echo 127.0.0.1 STREAM head", "127.0.0.1", 1)
        assert node.launch(TWO).seen["env"]["PTX_HEAD_ADDR"] == "127.0.0.1"

    def test_never_this_machine_by_mistake(self, node: Node) -> None:
        self.cluster(node, "echo 127.0.1.1 STREAM head", "head", 1)
        done = node.launch(TWO)
        assert done.returncode != 0
        assert "head node's name head" in done.output
        assert not done.reached_the_launcher

    def test_the_head_may_know_itself_by_its_loopback_name(self, node: Node) -> None:
        self.cluster(node, "echo 127.0.1.1 STREAM head", "head", 0)
        assert node.launch(TWO).seen["env"]["PTX_HEAD_ADDR"] == "head"

    def test_the_address_of_the_interface_is_what_others_are_told(self, node: Node) -> None:
        self.cluster(node, "echo 10.0.0.1 STREAM head", "10.9.9.9", 1)
        env = node.launch(TWO | {"rendezvous": {"interface": "lo"}}).seen["env"]
        assert (env["PTX_HEAD_ADDR"], env["PTX_LOCAL_ADDR"]) == ("head", "127.0.0.1")


class TestSetup:
    def test_lines_share_one_shell_and_run_without_strictness(self, node: Node) -> None:
        done = node.launch(
            {"setup": ["export A=1", 'B="$A-$UNSET"; false; export B', "cd /", "f() { true; }; f"]}
        )
        assert done.returncode == 0, done.output
        assert done.seen["env"]["A"] == "1"
        assert done.seen["env"]["B"] == "1-"
        assert done.seen["cwd"] == str(node.folder / "work")

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("false", 1),
            ("(exit 42)", 42),
            ("exit 7", 7),
            ("exit 0", 1),
            ("no-such-program", 127),
            ("echo 'unclosed", None),
            ("if true; then", None),
            ("source missing.sh", 1),
        ],
    )
    def test_a_failing_line_is_named_with_its_number_and_exit_code(
        self, node: Node, line: str, code: int | None
    ) -> None:
        done = node.launch({"setup": ["true", line, "touch later"]})
        assert done.returncode == code if code else done.returncode != 0
        assert "setup line 2 of the spec failed: " in done.output
        assert line in done.output
        assert not done.reached_the_launcher
        assert not (node.folder / "work" / "later").exists()

    def test_the_specs_env_is_there_for_the_lines(self, node: Node) -> None:
        done = node.launch({"env": {"A": "x y"}, "setup": ['test "$A" = "x y"']})
        assert done.returncode == 0, done.output

    def test_a_setup_line_knows_the_job_and_the_ranks_do_not(self, node: Node) -> None:
        node.env |= {"SLURM_JOB_ID": "4711"}
        env = node.launch({"setup": ["export SCRATCH=/scratch/$SLURM_JOB_ID"]}).seen["env"]
        assert env["SCRATCH"] == "/scratch/4711"
        assert "SLURM_JOB_ID" not in env

    def test_a_python_that_setup_brings_is_found(self, node: Node) -> None:
        lines = [f"mkdir b && ln -s {sys.executable} b/python-of-setup", 'PATH="$PWD/b:$PATH"']
        done = node.launch({"setup": lines, "python": "python-of-setup"})
        assert done.returncode == 0, done.output
        assert done.seen["env"]["PTX_PYTHON"] == str(node.folder / "work" / "b" / "python-of-setup")


def test_a_missing_python_is_a_clear_sentence(node: Node) -> None:
    done = node.launch({"python": "python-9"})
    assert done.returncode == 78
    assert "there is no python called python-9" in done.output
    assert not done.reached_the_launcher


def test_a_relative_python_counts_from_the_working_folder(node: Node) -> None:
    lines = [f"mkdir -p env/bin && ln -s {sys.executable} env/bin/python"]
    done = node.launch({"setup": lines, "python": "env/bin/python"})
    assert done.seen["env"]["PTX_PYTHON"] == str(node.folder / "work" / "env" / "bin" / "python")


def test_a_missing_working_folder_is_a_clear_sentence(node: Node) -> None:
    done = node.launch({"workdir": "nowhere"})
    assert done.returncode == 78
    assert "cannot start in" in done.output
    assert not done.reached_the_launcher


def test_one_line_says_where_the_ranks_meet_and_with_which_python(node: Node) -> None:
    done = node.launch({})
    assert done.reached_the_launcher
    assert "ptx: node 0 of 1 on " in done.output
    assert "head 127.0.0.1:23456, python /" in done.output


def test_a_secret_is_in_no_file_and_reaches_the_rank(node: Node) -> None:
    value = "value-of-the-secret"
    node.env["MY_TOKEN"] = value
    done = node.launch({"secrets": ["MY_TOKEN"]})
    assert done.seen["env"]["MY_TOKEN"] == value
    assert [file.path for file in done.bundle if value.encode() in file.data] == []
    assert value not in done.output
