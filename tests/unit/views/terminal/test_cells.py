"""Text in cells: what it is escaped to, how it is cut, and that every line is as wide as it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from soth_mitm.views.terminal.cells import clean, cut, fit, wrap

ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from("\x1b\u0301\u200d漢👩\ufe0f[]\\\t\n\r "), max_size=80)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("é è", "é è"),
        ("\x1b[0m", "\\x1b[0m"),
        ("e\u0301", "e\u0301"),
        ("\u0301x", "\\u0301x"),
        ("e\u0301\u0301\u0301\u0301", "e\u0301\u0301\u0301\\u0301"),
        ("-\u0301", "-\\u0301"),
        ("\u2764\ufe0f", "\u2764\\ufe0f"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("สวัสดี", "สวัสดี"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(ANY, st.integers(0, 40))
def test_cut_and_fit(text: str, width: int) -> None:
    assert cell_len(cut(text, width)) <= width
    for right in (False, True):
        assert cell_len(fit(text, width, right=right)) == width
    assert cut(text, width).isprintable()


@given(ANY, st.integers(2, 40))
def test_wrap(text: str, width: int) -> None:
    lines = list(wrap(text, width))
    assert all(cell_len(line) <= width and line.isprintable() for line in lines)
    whole = "".join(clean(line.removesuffix("\r").replace("\t", "    ")) for line in text.split("\n"))
    assert "".join(lines) == whole


def test_wrap_breaks_between_words() -> None:
    assert list(wrap("one two three four", 10)) == ["one two ", "three four"]
    assert list(wrap("0123456789abc", 10)) == ["0123456789", "abc"]
