"""The spellings of a value, each as real encoders write it, inside a text and with neighbours."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm.spellings import SHORTEST, spellings_of

KEYS = [
    "sk-ant-0123456789abcdef",
    'p@ss w0rd+/=&"~',
    "a/b<c>d&e'f\\g",
    "gr\u00fc\u00dfe \U0001f511 \u20ac",
    "tab\tand\x01control",
    "0123456~7%8",
]
VALUES = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=SHORTEST, max_size=40)


def assert_found(value: str, encoded: bytes | str) -> None:
    data = encoded.encode() if isinstance(encoded, str) else encoded
    assert any(spelling in data for spelling in spellings_of(value.encode())), data


@pytest.mark.parametrize("value", KEYS)
def test_percent_encoded(value: str) -> None:
    for text in (
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote(value, safe="!*'()"),  # encodeURIComponent
        urllib.parse.quote_plus(value),
        urllib.parse.urlencode({"before": "x", "key": value, "behind": "y"}),
    ):
        assert_found(value, text)
        assert_found(value, re.sub("%..", lambda escape: escape[0].lower(), text))


@pytest.mark.parametrize("value", KEYS)
def test_json(value: str) -> None:
    for text in (json.dumps({"key": value}), json.dumps({"key": value}, ensure_ascii=False)):
        assert_found(value, text)
        assert_found(value, text.replace("/", "\\/"))
        go = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        assert_found(value, go)
        assert_found(value, go.replace("'", "\\u0027").replace("003c", "003C").replace("003e", "003E"))


@pytest.mark.parametrize("value", KEYS)
@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:", b"user 2:"])
@pytest.mark.parametrize("behind", [b"", b"\xff", b"\0\0", b"more"])
def test_base64(value: str, before: bytes, behind: bytes) -> None:
    whole = before + value.encode() + behind
    assert_found(value, base64.b64encode(whole))
    assert_found(value, base64.urlsafe_b64encode(whole))


@given(value=VALUES, before=st.binary(max_size=5), behind=st.binary(max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_value(value: str, before: bytes, behind: bytes) -> None:
    assert_found(value, urllib.parse.quote(value))
    assert_found(value, urllib.parse.quote_plus(value))
    assert_found(value, json.dumps([value]))
    assert_found(value, json.dumps([value], ensure_ascii=False))
    assert_found(value, base64.b64encode(before + value.encode() + behind))
    assert min(map(len, spellings_of(value.encode()))) >= SHORTEST


def test_bytes_that_are_no_text() -> None:
    value = b"\xff\xfe binary key"
    assert {value, b"%FF%FE%20binary%20key", b"%ff%fe%20binary%20key", b"%FF%FE+binary+key"} <= spellings_of(value)


def test_a_key_of_plain_letters_has_few_spellings() -> None:
    # itself, and base64 in three alignments; both alphabets agree where neither + nor / occurs
    assert len(spellings_of(b"sk-ant-0123456789abcdef")) <= 7


def test_a_short_value_is_refused() -> None:
    with pytest.raises(ValueError, match="^a value of 7 bytes is too short to be searched for; 8 are needed$"):
        spellings_of(b"1234567")
