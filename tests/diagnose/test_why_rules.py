"""The rules, each held by its own example."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.agent.echo import is_echo
from orchestrator.diagnose.match import Ending, ending_of, explain
from orchestrator.diagnose.rules import KNOWN, Example, Rule, all_rules, known, read_rules
from orchestrator.diagnose.tail import Tail
from orchestrator.diagnose.waiting import REASONS
from orchestrator.errors import UserError

HEALTHY = sorted((Path(__file__).parent / "corpus" / "healthy").glob("*.log"))
LOGS = sorted((Path(__file__).parent / "corpus" / "logs").glob("*.log"))
PAIRS = [(rule, example) for rule in known() for example in rule.examples]

OWN = """
[[rule]]
id = "shard-server"
class = "failed"
text = ['ShardError: server (?P<host>\\S+) is away']
cause = "the shard server {host}[ in {rack}] was away"
next = "Start it again."
"""


@pytest.mark.parametrize(
    ("rule", "example"),
    PAIRS,
    ids=[f"{rule.id}-{number}" for number, (rule, _) in enumerate(PAIRS)],
)
def test_each_rule_explains_its_own_example_better_than_any_other(
    rule: Rule, example: Example
) -> None:
    match = explain(known(), ending_of(example))
    assert match is not None
    assert match.rule.id == rule.id
    assert match.cause
    assert "{" not in match.cause


def test_each_rule_has_an_id_of_its_own_and_an_example_that_needs_it() -> None:
    rules = known()
    assert len({rule.id for rule in rules}) == len(rules) >= 40
    for rule in rules:
        assert rule.examples, rule.id
        others = [other for other in rules if other is not rule]
        for example in rule.examples:
            match = explain(others, ending_of(example))
            assert match is None or match.rule.id != rule.id


def test_the_agent_takes_the_same_exceptions_for_echoes_as_the_rules_do() -> None:
    """It blames hosts before anybody asks why, and cannot read the rules where it runs."""
    texts = [example.text for _, example in PAIRS] + [log.read_text() for log in LOGS]
    echoes = 0
    for text in texts:
        lines = tuple(text.split("\n"))
        index = Tail(Path(), lines).last_exception()
        said = "" if index is None else "\n".join(lines[index:])
        match = explain(known(), Ending(exit_code=1, exception=said))
        assert is_echo(said) is bool(match and match.rule.echo), said
        echoes += is_echo(said)
    assert echoes >= 10


def test_every_slot_of_a_cause_that_may_stay_empty_stands_in_brackets() -> None:
    for rule in known():
        needed = re.sub(r"\[[^\[\]]*\]", "", rule.cause)
        for slot in re.findall(r"\{(\w+)\}", needed):
            for pattern in rule.patterns:
                assert slot in pattern.groupindex, f"{rule.id}: {slot}"


@pytest.mark.parametrize("log", HEALTHY, ids=[log.stem for log in HEALTHY])
def test_no_rule_fires_on_a_healthy_log(log: Path) -> None:
    """Even if the rank had ended with 1 there, for a reason that it does not tell."""
    lines = tuple(log.read_text().split("\n"))
    for place in ("rank", "launcher", "scheduler"):
        match = explain(known(), Ending(place, exit_code=1, said=lines))
        assert match is None, f"{log.stem}: {match and (match.rule.id, match.text)}"


def test_there_are_twenty_healthy_logs() -> None:
    assert len(HEALTHY) >= 20


@pytest.mark.parametrize("log", LOGS, ids=[log.stem for log in LOGS])
def test_a_log_of_a_failure_is_explained_by_the_rule_that_its_first_line_names(log: Path) -> None:
    head, text = log.read_text().split("\n", 1)
    named = dict(word.split("=", 1) for word in head.removeprefix("# ").split())
    code = int(named.get("code", "1"))
    example = Example(
        text.strip("\n"),
        named.get("place", "rank"),
        signal=-code if code < 0 else None,
        exit_code=code if code >= 0 else None,
        ended=named.get("ended", ""),
    )
    match = explain(known(), ending_of(example))
    assert (match.rule.id if match else "") == named["rule"]


def test_rules_of_ones_own_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "ptx" / "rules"
    folder.mkdir(parents=True)
    (tmp_path / "ptx" / "rules.toml").write_text(OWN)
    (folder / "disk.toml").write_text(
        OWN.replace("shard-server", "our-disk").replace(
            "ShardError: server", r"OSError: \[Errno 28\]"
        )
    )
    more = tmp_path / "more.toml"
    more.write_text(OWN.replace("shard-server", "from-the-option"))
    rules = all_rules([more])
    assert [rule.id for rule in rules[:3]] == ["from-the-option", "shard-server", "our-disk"]
    said = ("ShardError: server s3 is away",)
    match = explain(rules[1:], Ending(exit_code=1, said=said))
    assert match is not None
    assert (match.rule.id, match.cause) == ("shard-server", "the shard server s3 was away")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[rule]\n", "not TOML"),
        ("rule = 1\n", "beside"),
        ("[other]\n", "beside"),
        ('[[rule]]\nid = "x"\n', "class must be a text"),
        (OWN.replace('class = "failed"', 'class = "sad"'), "class sad is none of"),
        (OWN.replace(r"(?P<host>\S+)", "("), "rule shard-server: missing )"),
        (OWN.replace("text =", "txet ="), "txet is not a key"),
        (
            OWN.replace("text = ['ShardError: server (?P<host>\\S+) is away']", ""),
            "nothing to match",
        ),
        (OWN + 'signal = "SIGWHAT"\n', "SIGWHAT is not the name of a signal"),
        (OWN + 'place = "moon"\n', "place is none of"),
    ],
)
def test_a_rule_that_cannot_be_used_is_told_with_its_file(
    text: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        all_rules([path])
    assert told in error.value.message


def test_a_rule_file_that_is_not_there_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_rules(tmp_path / "nothing.toml")


def test_the_rules_are_part_of_the_package() -> None:
    assert (KNOWN / "10-memory.toml").is_file()


def test_every_key_of_the_spec_that_advice_names_exists(checkout: Path) -> None:
    rows = (checkout / "tests/unit/spec_keys.txt").read_text().splitlines()
    keys = {row.split()[0] for row in rows if row}
    sections = "|".join({key.split(".")[0] for key in keys if "." in key})
    waits = tomllib.loads(REASONS.read_text()).values()
    for text in [rule.next for rule in known()] + [row["next"] for row in waits]:
        for name in re.findall(rf"\b(?:{sections})\.[a-z_.]*[a-z]", text):
            assert name in keys or name == "launcher.log", text
