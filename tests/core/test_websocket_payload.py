"""Masking and UTF-8 in C against the same in Python: any octets, any key, any alignment, any split."""

from __future__ import annotations

import codecs
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.doubles import load_double
from support.feeding import cut_at, splits

KEYS = st.binary(min_size=4, max_size=4)


@pytest.fixture(scope="module")
def payload() -> Any:
    """The functions of ext/."""
    return load_double("websocket")


def masked(data: bytes, key: bytes, phase: int) -> bytes:
    """RFC 6455 section 5.3, as it is written there."""
    return bytes(octet ^ key[(phase + at) % 4] for at, octet in enumerate(data))


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("alignment", range(8))
def test_masking_at_every_alignment_and_phase(payload: Any, alignment: int, phase: int) -> None:
    data, key = bytes(range(7, 107)), b"\x01\xfe\x00\x80"
    for length in range(len(data)):
        expected = masked(data[:length], key, phase), (phase + length) % 4
        assert payload.mask(data[:length], key, phase, alignment, 0) == expected
        assert payload.mask(data[:length], key, phase, 0, alignment) == expected


@given(data=st.binary(max_size=600), key=KEYS, places=st.lists(st.integers(0, 600), max_size=6))
@settings(max_examples=200, deadline=None)
def test_masking_of_any_octets_in_any_pieces(payload: Any, data: bytes, key: bytes, places: list[int]) -> None:
    found, phase = b"", 0
    for piece in cut_at(data, places):
        out, phase = payload.mask(piece, key, phase)
        found += out
    assert found == masked(data, key, 0)
    assert payload.mask(found, key, 0)[0] == data


def is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# Characters at the borders of the rules, and what is none: overlong, surrogates, too high, cut
ODD = [
    "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "a" * 40,
]  # fmt: skip
WRONG = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xc2", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc2A", b"\xe2\x82A",
]  # fmt: skip
PIECES = st.one_of(st.sampled_from([text.encode() for text in ODD]), st.sampled_from(WRONG), st.text(max_size=40).map(str.encode))


@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=5)), max_size=8), places=st.lists(st.integers(0, 200), max_size=5))
@settings(max_examples=400, deadline=None)
def test_any_octets_are_a_text_as_python_says(payload: Any, pieces: list[bytes], places: list[int]) -> None:
    data = b"".join(pieces)
    state = payload.BORDER
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_wrong = False
    for piece in cut_at(data, places):
        state = payload.utf8(state, piece)
        if not is_wrong:
            try:
                decoder.decode(piece)
            except UnicodeDecodeError:
                is_wrong = True
        # at the octet at which Python says it, or before: Python waits for the whole of a surrogate
        assert state == payload.WRONG or not is_wrong
    assert (state == payload.BORDER) == is_text(data)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.hex())
@pytest.mark.parametrize("before", [b"", b"a", b"a" * 37, "€".encode(), "a😀".encode()], ids=lambda before: before.hex()[:8])
def test_what_is_no_text_in_every_split(payload: Any, before: bytes, wrong: bytes) -> None:
    for pieces in splits(before + wrong):
        state = payload.BORDER
        for piece in pieces:
            state = payload.utf8(state, piece)
        assert state != payload.BORDER
        assert payload.utf8(state, b"a") == payload.WRONG


@given(text=st.text(max_size=60), end=st.integers(0, 240))
@settings(max_examples=300, deadline=None)
def test_a_text_is_cut_behind_a_whole_character(payload: Any, text: str, end: int) -> None:
    data = text.encode()[:end]
    assert payload.whole(payload.utf8(payload.BORDER, data), data) == data.decode("utf-8", "ignore").encode()
