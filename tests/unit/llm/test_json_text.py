"""JSON as servers send it, and arrays in pieces."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm.llm.json_text import JsonArrayReader, decoded, mended
from support.feeding import cut_at, splits

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def elements(pieces: list[bytes], limit: int = 1 << 20) -> tuple[list[Any], JsonArrayReader]:
    reader = JsonArrayReader(limit)
    return [json.loads(text) for piece in pieces for text in reader.feed(piece)], reader


def test_an_array_however_it_is_cut() -> None:
    objects = [{"a": '"]}\\'}, {"b": [[], {"c": {}}], "d": "\\"}, {}, {"e": "ü"}]
    text = json.dumps(objects, indent=1, ensure_ascii=False).encode() + b"\n {behind}"
    for pieces in splits(text):
        found, reader = elements(pieces)
        assert (found, reader.complete) == (objects, True)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), max_size=4), st.lists(st.integers(0, 500), max_size=5), st.booleans()
)
def test_any_array(objects: list[dict[str, Any]], places: list[int], indented: bool) -> None:
    text = json.dumps(objects, indent=2 if indented else None).encode()
    found, reader = elements(cut_at(text, places))
    assert (found, reader.complete) == (objects, True)


@given(st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), max_size=4), st.data())
def test_an_array_that_ends_early_gives_what_is_whole(objects: list[dict[str, Any]], data: st.DataObject) -> None:
    text = json.dumps(objects).encode()
    found, reader = elements([text[: data.draw(st.integers(0, len(text) - 1))]])
    assert found == objects[: len(found)] and not reader.complete


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=3))
def test_any_bytes(data: bytes, places: list[int]) -> None:
    whole, cut = JsonArrayReader(50), JsonArrayReader(50)
    expected = whole.feed(data)
    assert [text for piece in cut_at(data, places) for text in cut.feed(piece)] == expected
    assert whole.complete == cut.complete


def test_an_element_over_the_limit_is_left_out() -> None:
    text = b'[{"a": 1}, {"a": "' + b"x" * 100 + b'"}, {"a": 3}]'
    for pieces in splits(text):
        found, reader = elements(pieces, 20)
        assert (found, reader.truncated, reader.complete) == ([{"a": 1}, {"a": 3}], True, True)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": "\\ud83c"}', {"a": "\ud83c"}),
        (b'"a\xff"', "a\ufffd"),
        (b" [1] ", [1]),
        (b"12345678901234567890123", 12345678901234567890123),
    ],
)
def test_what_is_read(data: bytes, value: object) -> None:
    assert decoded(data) == value


@pytest.mark.parametrize("data", [b"", b"x", b'{"a"', b"[" * 100_000, b"{} {}", b"9" * 5000 + b"x"])
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no JSON: "):
        decoded(data)


def test_mended() -> None:
    assert mended("plain") == "plain"
    assert mended("\ud83c\udf1e") == "🌞"
    assert mended("a\udf1e\ud83cb") == "a\ufffd\ufffdb"
