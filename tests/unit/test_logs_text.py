"""What reaches the terminal: text and colours, and nothing that acts on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.logs.line import BEGINNING, Entry, stamp_of
from orchestrator.logs.screen import coloured, plain
from orchestrator.logs.select import RankLog
from orchestrator.logs.text import JsonLines, TextLines

LOGS = [RankLog(0, 0, 0, Path("a")), RankLog(0, 1, 3, Path("b")), RankLog(1, 1, 3, Path("c"))]

HOSTILE = {
    "title": "\x1b]0;pwned\x07",
    "title with ST": "\x1b]2;pwned\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "hyperlink": "\x1b]8;;http://example.org\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "cursor up": "\x1b[10A\x1b[K",
    "alternate screen": "\x1b[?1049h",
    "eight bit": "\x9b2J\x9d0;x\x9c",
    "device query": "\x1b[6n\x1b[c\x1bP$q\x1b\\",
    "reset": "\x1bc\x1b(0\x1b#8",
    "bell and backspace": "\x07\x08\x7f\x00",
    "unfinished string": "\x1b]0;never ends",
    "unfinished sequence": "\x1b[12;",
    "bidi": "\u202etxt.exe\u2066",
}


def entry(text: str, source: int = 0, mark: str = "o") -> Entry:
    stamp = stamp_of(1_795_000_000)
    return stamp, source, f"{stamp} {mark} {text}"


@pytest.mark.parametrize("name", HOSTILE)
def test_no_sequence_that_acts_reaches_the_terminal(name: str) -> None:
    for clean in (plain, coloured):
        shown = clean(f"before{HOSTILE[name]}")
        assert shown.startswith("before")
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


@given(st.text(st.sampled_from("\x1b[]0;m2J\x07\x9b\x9c\\P?hé\udcff\t"), max_size=30))
def test_no_mix_of_pieces_gets_through(text: str) -> None:
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]", plain(text))
    without_colours = re.sub(r"\x1b\[[0-9;:]*m", "", coloured(text))
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]", without_colours)


def test_colours_pass_on_a_terminal_and_end_with_the_line() -> None:
    assert coloured("\x1b[1;32mgreen") == "\x1b[1;32mgreen\x1b[0m"
    assert plain("\x1b[1;32mgreen\x1b[0m") == "green"
    assert coloured("tab\tü 漢") == plain("tab\tü 漢") == "tab\tü 漢"


def test_bytes_that_are_not_utf8_show_as_what_they_are() -> None:
    assert plain("caf\udce9") == coloured("caf\udce9") == "caf\\xe9"


def test_each_line_bears_rank_node_and_stream() -> None:
    text = TextLines(LOGS, colour=False).render(
        [entry("one"), entry("two", 1, "e"), entry("half", 1, "E"), entry("foreign", 0, "?")]
    )
    assert text.splitlines() == [
        "[0 node-0000] one",
        "[3 node-0001 err] two",
        "[3 node-0001 err] half",
        "[0 node-0000] foreign",
    ]


def test_a_later_attempt_bears_its_number() -> None:
    assert TextLines(LOGS, colour=False).render([entry("x", 2)]) == "[3 node-0001 a1] x\n"
    assert (
        TextLines(LOGS, colour=False, attempts=True)
        .render([entry("x")])
        .startswith("[0 node-0000 a0]")
    )


def test_logs_that_appear_later_get_their_prefix() -> None:
    logs = LOGS[:1]
    lines = TextLines(logs, colour=False)
    assert lines.render([entry("x")]) == "[0 node-0000] x\n"
    logs.append(LOGS[1])
    assert lines.render([entry("y", 1)]) == "[3 node-0001] y\n"


@given(st.lists(st.text(st.characters(exclude_characters="\n")), min_size=1, max_size=5))
def test_the_quick_way_and_the_careful_way_show_the_same(texts: list[str]) -> None:
    """A batch is checked as a whole first; alone, each line must come out alike."""
    lines = TextLines(LOGS, colour=False)
    together = lines.render([entry(text) for text in texts])
    assert together == "".join(lines.render([entry(text)]) for text in texts)
    assert together == "".join(f"[0 node-0000] {plain(text)}\n" for text in texts)


def test_half_a_character_from_somebodys_json_is_shown_as_unknown() -> None:
    assert plain("a\udd00b") == coloured("a\udd00b") == "a\ufffdb"


def test_the_colour_of_a_rank_is_the_same_in_every_run() -> None:
    other = [RankLog(5, 7, 3, Path("z"))]
    first = TextLines(LOGS, colour=True).render([entry("x", 1)])
    again = TextLines(other, colour=True).render([entry("x")])
    assert first.split("[3 ")[0] == again.split("[3 ")[0] == "\x1b[35m"


def test_json_has_every_field_and_escapes_everything() -> None:
    text = JsonLines(LOGS).render(
        [entry("a\x1b[2J\udcff", 1, "E"), (BEGINNING, 0, f"{BEGINNING} ? foreign")]
    )
    assert text.isascii()
    assert [json.loads(line) for line in text.splitlines()] == [
        {
            "v": 1, "time": stamp_of(1_795_000_000), "attempt": 0, "node": 1, "rank": 3,
            "stream": "stderr", "text": "a\x1b[2J\\xff", "complete": False,
        },
        {
            "v": 1, "time": None, "attempt": 0, "node": 0, "rank": 0,
            "stream": None, "text": "foreign", "complete": True,
        },
    ]  # fmt: skip
