"""The output of the command line."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bootvol.cli import show, waiting
from bootvol.cli.text import lines, shown

#: Any text, often with characters special to terminals, rich or JSON.
HARD = st.sampled_from(
    '\x00\x07\x1b\x7f\x85\x9b\xa0\u061c\u200f\u2028\u202e\u2066\ud800[]/\\"\n\r\t:'
)
TEXT = st.text(st.one_of(st.characters(exclude_categories=[]), HARD), max_size=40)
HEADINGS = {"name": "NAME", "size": "GiB"}


class Terminal(io.StringIO):
    """The bytes sent to a terminal."""

    def isatty(self) -> bool:
        """Return True, as a terminal does."""
        return True


@given(TEXT)
def test_no_text_reaches_a_terminal_as_it_is(text: str) -> None:
    """Every text is shown with its control characters escaped.

    Break: `src/bootvol/cli/text.py`: `if text.isprintable():` -> `if text:`.
    """
    assert shown(text).isprintable()
    assert all(line.isprintable() for line in lines(text).split("\n"))
    if text.isprintable():
        assert shown(text) == text


@given(st.dictionaries(TEXT, TEXT, max_size=3))
def test_json_says_the_same(value: dict[str, str]) -> None:
    """JSON has no control characters in the output, and keeps its meaning.

    Break: `src/bootvol/cli/text.py`: `"".join(map(_in_json, line))` -> `line`.
    """
    text = show.as_json(value)
    assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(text) == json.loads(json.dumps(value))


# No time limit: the first table imports rich.
@given(st.lists(TEXT, max_size=5))
@example(["x" * 200])
def test_a_row_is_one_line_where_no_terminal_is(names: list[str]) -> None:
    """A row of a table is one line of output in a pipe.

    Break: `src/bootvol/cli/show.py`: `width=None if sys.stdout.isatty() else _UNFOLDED` ->
    `width=80`.
    """
    sent = io.StringIO()
    with redirect_stdout(sent):
        show.table([{"name": name, "size": 1} for name in names], HEADINGS)
    printed = sent.getvalue().removesuffix("\n").split("\n")
    assert len(printed) == 1 + len(names)
    for name, line in zip(names, printed[1:], strict=True):
        assert line.isprintable()
        assert line.startswith(shown(name))


@given(st.lists(TEXT, max_size=3))
def test_a_terminal_is_sent_no_control_characters(names: list[str]) -> None:
    """A terminal gets no control characters in a table.

    Break: `src/bootvol/cli/show.py`: `Text(shown(cell)) for cell` -> `Text(cell) for cell`.
    """
    sent = Terminal()
    with redirect_stdout(sent):
        show.table([{"name": name, "size": None} for name in names], HEADINGS)
    for line in sent.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n"):
        assert line.isprintable()


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        ({"phase": "queued", "position": 3}, "waiting (3 in line)"),
        ({"phase": "downloading", "position": 1}, "waiting (1 in line)"),
        ({"phase": "downloading", "position": None}, "downloading"),
        ({"phase": "queued"}, "queued"),
    ],
)
def test_who_waits_sees_the_place_in_line(progress: dict[str, Any], shown: str) -> None:
    assert waiting.stage(progress) == shown
