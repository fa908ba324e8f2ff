"""A person's own script under ptx: unchanged, and its ranks train one model together."""

from __future__ import annotations

import ast
import re
import threading
from pathlib import Path

import pytest
from support.ptx import CHECKOUT, Ptx, exit_records, rank_logs
from support.training_ranks import end, start

from orchestrator.spec.loader import load

EXAMPLES = CHECKOUT / "jobs" / "examples"
SUPPORT = CHECKOUT / "tests" / "support"
SHORT = {
    "own_accelerate": "entrypoint.args.epochs=3",
    "own_ddp": "entrypoint.args.epochs=3",
    "own_fabric": "entrypoint.args.steps=40",
    "own_trainer": "entrypoint.args.steps=30",
}
LOSS = re.compile(r"loss\W+(\d+\.\d+)")
LAST = re.compile(r"rank \d+ (?:stops after|of)")
END = re.compile(r"rank (\d+) of (\d+) parameters (\d+\.\d+)")


def test_each_script_has_its_spec_and_each_spec_is_run_below() -> None:
    assert {path.stem for path in EXAMPLES.glob("own_*.py")} == set(SHORT)
    assert {path.stem for path in EXAMPLES.glob("own_*.yaml")} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_the_spec_loads_without_a_warning(name: str) -> None:
    loaded = load(EXAMPLES / f"{name}.yaml")
    assert loaded.warnings == ()
    assert loaded.spec.name == name.replace("_", "-")


@pytest.mark.parametrize("name", SHORT)
def test_the_script_knows_nothing_of_ptx(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    imported = {
        module.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert imported.isdisjoint({"orchestrator", "launchers", "ptx"})
    assert "PTX_" not in text


def test_the_lines_that_are_documented_are_those_of_the_example() -> None:
    text = (CHECKOUT / "docs" / "training.md").read_text()
    part = text.partition("Your own script does it")[2].partition("where `stop_file`")[0]
    lines = [line.strip() for line in part.splitlines() if line.startswith("    ")]
    script = [line.strip() for line in (EXAMPLES / "saves_when_told.py").read_text().splitlines()]
    script = [line for line in script if not line.startswith("print(")]
    first = script.index(lines[0])
    assert script[first : first + 6] == lines
    assert 'Path(os.environ.get("PTX_STOP_FILE", "/nonexistent"))' in " ".join(script)
    assert load(EXAMPLES / "saves_when_told.yaml").warnings == ()


# torch 2.13 with gloo ends a few processes in a hundred so, after their last line, in the
# interpreter's own exit. ptx is right to call that a failure, and nothing in a script prevents it.
ABORTED = "terminate called without an active exception"


def trained(ptx: Ptx, name: str) -> tuple[Path, str]:
    """The run's folder, and what went wrong, if something did."""
    run = ptx.submit(
        EXAMPLES / f"{name}.yaml",
        *("--set", SHORT[name]),
        *("--set", "resources.gpus_per_node=0"),
    )
    waited = ptx("wait", run.name, "--timeout", "200s", timeout=240)
    if waited.returncode == 0:
        return run, ""
    return run, waited.stdout + waited.stderr + ptx.story(run)


def told(folder: Path, *argv: str) -> list[str]:
    """What each of two ranks has printed up to its last line; how torch ends them is its own."""
    folder.mkdir(exist_ok=True)
    where = {"PTX_STOP_FILE": str(folder / "stop"), "PTX_RUN_DIR": str(folder)}
    ranks = start(Path(argv[0]), *argv[1:], "--steps=30", world_size=2, **where)

    def kill() -> None:
        for rank in ranks:
            rank.kill()

    watch = threading.Timer(300, kill)
    watch.start()
    try:
        said = []
        for rank in ranks:
            assert rank.stdout is not None and rank.stderr is not None
            lines = []
            for line in rank.stdout:
                lines.append(line)
                if LAST.match(line):
                    break
            else:
                pytest.fail(f"{lines} {rank.stderr.read()}")
            said.append("".join(lines))
        return said
    finally:
        watch.cancel()
        kill()
        end(ranks)


@pytest.mark.slow
def test_ranks_of_which_one_has_seen_the_stop_file_and_one_has_not_save_at_the_same_step(
    tmp_path: Path,
) -> None:
    """And go on from there as if they had never stopped."""
    script = str(EXAMPLES / "saves_when_told.py")
    whole = told(tmp_path / "whole", script)
    stopped = told(tmp_path / "torn", str(SUPPORT / "torn_look.py"), "7", script)
    assert stopped == [f"rank {rank} stops after step 7\n" for rank in range(2)]
    (tmp_path / "torn" / "stop").unlink()
    resumed = told(tmp_path / "torn", script)
    for rank, (one, other) in enumerate(zip(whole, resumed, strict=True)):
        assert other.startswith(f"rank {rank} goes on after step 7\n")
        assert END.findall(one) == END.findall(other) != []


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_two_ranks_train_one_model(name: str, tmp_path: Path) -> None:
    """Each rank draws weights and takes samples of its own, so they end equal only together."""
    ptx = Ptx(tmp_path / "runs")
    run, story = trained(ptx, name)
    for _ in range(3):
        if ABORTED in story:
            run, story = trained(ptx, name)
    assert not story, story
    assert [record["exit_code"] for record in exit_records(run)] == [0, 0]

    logs = [log.read_text() for log in rank_logs(run)]
    losses = [float(loss) for loss in LOSS.findall(logs[0])]
    assert len(losses) >= 3, logs[0]
    assert losses[-1] < losses[0] - 0.3
    ends = [END.findall(log) for log in logs]
    assert [[end[:2] for end in found] for found in ends] == [[("0", "2")], [("1", "2")]]
    (first,), (second,) = ends
    assert first[2] == second[2]
