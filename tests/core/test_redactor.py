"""Replacing many strings in a stream, against a search that tries each at each place; at every split."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.wire.redactor import Redactor, SearchedStrings
from support.feeding import cut_at, splits

# few letters: beginnings, overlaps and repetitions are frequent
TEXT = st.text("ab", max_size=80).map(str.encode)
STRINGS = st.sets(st.text("ab", min_size=2, max_size=12).map(str.encode), min_size=1, max_size=8)


def slowly(data: bytes, strings: set[bytes], replacement: bytes) -> tuple[bytes, int]:
    out, at, found = b"", 0, 0
    while at < len(data):
        here = [each for each in strings if data.startswith(each, at)]
        if here:
            out, at, found = out + replacement, at + max(map(len, here)), found + 1
        else:
            out, at = out + data[at : at + 1], at + 1
    return out, found


def redacted(pieces: list[bytes], strings: set[bytes], replacement: bytes = b"#") -> tuple[bytes, int]:
    redactor = Redactor(SearchedStrings(strings), replacement)
    longest = max(map(len, strings))
    out = b""
    for piece in pieces:
        out += redactor.feed(piece)
        assert redactor.held_bytes < longest
    return out + redactor.finish(), redactor.replaced


@given(data=TEXT, strings=STRINGS, places=st.lists(st.integers(0, 80), max_size=8))
@settings(max_examples=1000, deadline=None)
def test_any_text_in_any_pieces(data: bytes, strings: set[bytes], places: list[int]) -> None:
    expected = slowly(data, strings, b"#")
    assert redacted([data], strings) == expected
    assert redacted(cut_at(data, places), strings) == expected
    assert redacted([data[at : at + 1] for at in range(len(data))], strings) == expected


def test_every_split_of_text_with_strings_that_overlap() -> None:
    strings = {b"secret-one", b"secret-one-longer", b"one-longer!", b"ret-one-l"}
    data = b"a secret-one, secret-one-longe, secret-one-longer!, one-longer! and secret-on"
    expected = b"a #, #-longe, #!, # and secret-on", 4
    for pieces in splits(data):
        assert redacted(pieces, strings) == expected


def test_what_is_found_is_not_searched_again() -> None:
    assert redacted([b"aXbXc"], {b"aX", b"ab"}, b"a") == (b"abXc", 1)


def test_data_in_which_nothing_is_found_is_not_copied() -> None:
    redactor = Redactor(SearchedStrings([b"a secret that is not here"]), b"")
    data = b"x" * 10_000
    assert redactor.feed(data) is data


def test_only_a_beginning_is_held_back() -> None:
    redactor = Redactor(SearchedStrings([b"sk-0123456789"]), b"[key]")
    assert redactor.feed(b"the key is sk-01") == b"the key is "
    assert redactor.held_bytes == 5
    assert redactor.feed(b"2345") == b""
    assert redactor.feed(b"6789.") == b"[key]."
    assert redactor.feed(b"sk-01") == b""
    assert redactor.finish() == b"sk-01"
    assert redactor.held_bytes == 0
    assert redactor.feed(b"23456789") == b"23456789"


def test_a_string_that_is_longer_than_a_step_of_the_search() -> None:
    long = b"x" * 699 + b"y"
    for before in range(0, 700, 37):
        data = b"z" * before + long + b"x" * 300
        for cut in range(0, len(data), 41):
            assert redacted([data[:cut], data[cut:]], {long}) == (b"z" * before + b"#" + b"x" * 300, 1)


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        ([], "expected 1 to 32767 strings, got 0"),
        ([b"ab%d" % number for number in range(40_000)], "expected 1 to 32767 strings, got 40000"),
        ([b"secret", b"s"], "a string has 1 bytes, and it needs 2"),
    ],
)
def test_strings_that_cannot_be_searched_for(strings: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        SearchedStrings(strings)


def test_an_error_shows_no_string() -> None:
    with pytest.raises(TypeError, match="^expected bytes, got str$"):
        SearchedStrings(["secret"])  # type: ignore[list-item]
