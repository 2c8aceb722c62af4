"""A secret shows its value to nobody who does not ask for it."""

import copy
import pickle
import traceback
from pathlib import Path

import pytest

from soth_mitm import Secret

VALUE = "sk-live-0123456789"


def test_it_says_nothing_of_its_value() -> None:
    secret = Secret(VALUE)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r}", "%s" % secret, repr([secret]), repr(dir(secret))]  # noqa: UP031
    assert shown[:5] == ["Secret(***)"] * 5
    assert not any(VALUE in text for text in shown)
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == VALUE.encode()


def test_it_cannot_be_pickled_hashed_or_changed() -> None:
    secret = Secret(VALUE)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(secret, protocol)
    with pytest.raises(TypeError):
        hash(secret)
    with pytest.raises(AttributeError, match="cannot be changed"):
        secret._value = b"other"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del secret._value
    assert copy.deepcopy([secret])[0] is secret and copy.copy(secret) is secret


def test_two_are_compared() -> None:
    assert Secret(VALUE) == Secret(VALUE.encode())
    assert Secret(VALUE) != Secret(VALUE + "0")
    assert Secret(VALUE) != VALUE
    assert Secret(VALUE) != VALUE.encode()


def test_a_comparison_takes_the_same_time_for_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: asked.append((one, other)) or one == other)
    assert Secret("abcdefgh") != Secret("xbcdefgh")
    assert asked == [(b"abcdefgh", b"xbcdefgh")]


@pytest.mark.parametrize("value", ["", b"", "ab\r", "a\nb", b"\0ab"])
def test_a_value_that_no_header_can_hold_is_refused(value: str | bytes) -> None:
    with pytest.raises(ValueError, match="a secret (is empty|contains)"):
        Secret(value)


@pytest.mark.parametrize("value", [None, 5, bytearray(b"value"), ["value"]])
def test_another_type_is_refused_and_not_shown(value: object) -> None:
    with pytest.raises(TypeError, match="expected str or bytes as a secret, got") as caught:
        Secret(value)  # type: ignore[arg-type]
    assert "value" not in str(caught.value).replace("got", "")


def test_no_error_shows_the_value() -> None:
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        Secret("sk-live-\udc80")
    shown = "".join(traceback.format_exception(caught.value))
    assert "sk-live" not in shown.replace('Secret("sk-live-\\udc80")', "")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_it_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "gr\u00fcn-0123")
    assert Secret.from_env("SOME_KEY") == Secret("gr\u00fcn-0123")
    monkeypatch.setenv("SOME_KEY", "")
    with pytest.raises(ValueError, match=r"a secret is empty \(in the environment variable SOME_KEY\)"):
        Secret.from_env("SOME_KEY")
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ValueError, match="the environment variable SOME_KEY is not set"):
        Secret.from_env("SOME_KEY")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_it_is_read_from_a_file_without_its_line_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(f" {VALUE} {end}".encode())
    assert Secret.from_file(path).reveal() == f" {VALUE} ".encode()


def test_a_file_with_more_than_a_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"one\ntwo\n")
    with pytest.raises(ValueError, match=r"contains a line feed.*\(in .*key\)"):
        Secret.from_file(path)
    with pytest.raises(FileNotFoundError):
        Secret.from_file(tmp_path / "none")
