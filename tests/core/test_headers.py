"""Headers: a multi-mapping that keeps what was received."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import pytest

from soth_mitm._dataplane.http.messages import RawRequest, RawResponse
from soth_mitm._dataplane.wire.headers import Headers

PAIRS: list[tuple[str | bytes, str | bytes]] = [("Content-Type", "text/plain"), ("X-Tag", "1"), ("x-tag", "2"), (b"X-Odd", b"\xff\xe9")]


def from_head() -> Headers:
    return RawResponse.build(headers=PAIRS).headers


def from_trailers() -> Headers:
    return RawResponse.build(trailers=PAIRS).trailers


each_origin = pytest.mark.parametrize("make", [lambda: Headers(PAIRS), from_head, from_trailers], ids=["pairs", "head", "trailers"])


@each_origin
def test_lookup_knows_no_case_and_names_keep_theirs(make: type[Headers]) -> None:
    headers = make()
    assert headers["content-type"] == headers["CONTENT-TYPE"] == "text/plain"
    assert headers.keys() == list(headers) == ["Content-Type", "X-Tag", "x-tag", "X-Odd"]
    assert "content-Type" in headers and "content" not in headers and 5 not in headers


@each_origin
def test_a_repeated_header_gives_its_first_value_or_all(make: type[Headers]) -> None:
    headers = make()
    assert (headers["X-TAG"], headers.get("x-tag"), headers.get_all("x-tag")) == ("1", "1", ["1", "2"])
    assert len(headers) == 4 and headers.get_all("absent") == []


@each_origin
def test_values_are_latin_1_and_raw_is_bytes(make: type[Headers]) -> None:
    headers = make()
    assert headers["x-odd"] == "ÿé" and headers.values()[-1] == "ÿé"
    assert headers.raw == [(b"Content-Type", b"text/plain"), (b"X-Tag", b"1"), (b"x-tag", b"2"), (b"X-Odd", b"\xff\xe9")]
    assert headers.items()[0] == ("Content-Type", "text/plain")


@each_origin
def test_what_is_absent(make: type[Headers]) -> None:
    headers = make()
    assert headers.get("absent") is None and headers.get("absent", "fallback") == "fallback" and headers.get("absent", 3) == 3
    with pytest.raises(KeyError, match="absent"):
        headers["absent"]
    # Not a name that Latin-1 could spell, so none that a message could have
    assert "content-type→" not in headers and headers.get("→") is None


@each_origin
def test_changing_what_raw_gave_changes_nothing(make: type[Headers]) -> None:
    headers = make()
    headers.raw.clear()
    headers.keys().clear()
    assert len(headers) == 4


def test_repr_shows_no_credentials() -> None:
    secret = ["Authorization", "proxy-authorization", "Cookie", "SET-COOKIE", "x-api-key", "X-Goog-Api-Key", "x-amz-security-token"]
    headers = Headers([(name, "hunter2") for name in secret] + [("X-Kept", "shown")])
    assert repr(headers) == f"Headers({[(name, '***') for name in secret] + [('X-Kept', 'shown')]!r})"
    assert headers["cookie"] == "hunter2"


@each_origin
def test_pickle_and_readable_repr(make: type[Headers]) -> None:
    headers = make()
    assert pickle.loads(pickle.dumps(headers)) == headers
    assert repr(headers) == "Headers([('Content-Type', 'text/plain'), ('X-Tag', '1'), ('x-tag', '2'), ('X-Odd', 'ÿé')])"


@each_origin
def test_it_works_where_mappings_are_asked_for(make: type[Headers]) -> None:
    headers = make()
    assert isinstance(headers, Mapping)
    assert dict(headers) == {"Content-Type": "text/plain", "X-Tag": "1", "x-tag": "1", "X-Odd": "ÿé"}
    assert Headers(headers).raw == headers.raw


def test_equal_means_the_same_fields_in_the_same_order() -> None:
    assert Headers({"A": "1", "B": "2"}) == Headers([("a", "1"), (b"b", b"2")])
    assert Headers({"A": "1", "B": "2"}) != Headers({"B": "2", "A": "1"})
    assert Headers({"A": "1"}) != Headers({"A": "2"})
    assert Headers({"A": "x"}) != Headers({"A": "X"})
    assert Headers() != {}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Headers())


def test_no_headers_are_false() -> None:
    assert not Headers() and Headers({"A": "1"})
    assert RawRequest.build().trailers == Headers()


def test_empty_values_are_values() -> None:
    for headers in (Headers({"A": ""}), RawRequest.build(headers={"A": ""}).headers, RawRequest.build(trailers={"A": ""}).trailers):
        assert headers["a"] == "" and "a" in headers


def test_a_str_beyond_latin_1_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="header 'X-Euro'.*Latin-1"):
        Headers({"X-Euro": "€"})


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="str or bytes, not int"):
        Headers({"X": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be str, not int"):
        Headers()[1]  # type: ignore[index]
