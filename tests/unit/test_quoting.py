from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.facts import Runtime
from orchestrator.errors import UserError
from orchestrator.render import quoting
from orchestrator.render.quoting import Shell, heredoc, quote, sh

HOSTILE = [
    "",
    " ",
    "$(touch canary)",
    "`touch canary`",
    "; touch canary",
    "a'b\"c",
    "'\"'\"'",
    "\\",
    "trailing\\",
    "-n",
    "--",
    "../..",
    "%j",
    "a,b,c",
    "${HOME}",
    "~",
    "*",
    "!!",
    "{a,b}",
    "#no comment",
    "é 🚀 日本語",
    "x" * 300,
]
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]))


def arrived(*texts: str) -> list[str]:
    """What bash makes of these words when each is quoted."""
    script = f"printf '%s\\0' {sh(texts)}"
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    return out.decode().split("\0")[:-1]


def test_hostile_text_arrives_byte_for_byte() -> None:
    assert arrived(*HOSTILE) == HOSTILE


@given(st.lists(TEXT, min_size=1, max_size=20))
def test_any_text_arrives_byte_for_byte(texts: list[str]) -> None:
    assert arrived(*texts) == texts


@pytest.mark.parametrize("bad", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\ud800"])
def test_control_characters_and_half_characters_are_refused(bad: str) -> None:
    with pytest.raises(UserError, match=r"U\+"):
        quote(f"before{bad}after")


def test_runtime_words_are_completed_by_the_shell_and_stay_one_word() -> None:
    word = sh(Runtime("--at=${PTX_HEAD_ADDR}:${PTX_HEAD_PORT}"))
    script = f"PTX_HEAD_ADDR='a b' PTX_HEAD_PORT='*'; printf '<%s>' {word}"
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True, text=True)
    assert out.stdout == "<--at=a b:*>"


@pytest.mark.parametrize("template", ["$(x)", "${HOME}", "`x`", 'a"b', "a b", "${PTX_PYTHON"])
def test_a_runtime_word_that_a_shell_could_interpret_is_no_runtime_word(template: str) -> None:
    with pytest.raises(ValueError, match=r"runtime"):
        Runtime(template)


def test_a_template_that_forgets_the_filter_does_not_render(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quoting, "template", lambda name: "echo {{ value }}\n")
    with pytest.raises(TypeError, match="without the sh filter"):
        quoting.load_template("any").render(value="$(touch canary)")


def test_a_template_that_uses_an_unknown_name_does_not_render(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quoting, "template", lambda name: "echo {{ value | sh }}\n")
    with pytest.raises(Exception, match="undefined"):
        quoting.load_template("any").render()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")))
def test_a_heredoc_gives_its_text_and_nothing_of_it_runs(text: str) -> None:
    text += "\nPTX_END\n$(touch canary)\n"
    script = heredoc(Shell("/dev/stdout"), text)
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert out.stdout == text.encode()
    assert out.stderr == b""
