"""`ChunkDecision` and `SseEvent`: immutable values, checked where they are made."""

import copy
import pickle
from typing import Any

import pytest

from soth_mitm import ChunkDecision, SseEvent
from soth_mitm.errors import DecisionError

EVENT = SseEvent("a\nb", event="delta", id="7", retry=1000)
VALUES = [ChunkDecision.PASS, ChunkDecision.DROP, ChunkDecision.END, ChunkDecision.replace("x"), ChunkDecision.replace(b"x", EVENT)]


def test_they_say_what_they_are() -> None:
    assert [repr(value) for value in VALUES] == [
        "ChunkDecision.PASS",
        "ChunkDecision.DROP",
        "ChunkDecision.END",
        "ChunkDecision.replace(b'x')",
        "ChunkDecision.replace(b'x', SseEvent(data=b'a\\nb', event='delta', id='7', retry=1000))",
    ]
    assert [value.kind for value in VALUES] == ["pass", "drop", "end", "replace", "replace"]
    assert [value.payloads for value in VALUES] == [(), (), (), (b"x",), (b"x", EVENT)]


@pytest.mark.parametrize("value", [*VALUES, EVENT])
def test_they_compare_and_copy_by_value(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    assert hash(copy.copy(value)) == hash(value)
    assert [other for other in [*VALUES, EVENT] if other == value] == [value]


@pytest.mark.parametrize("payload", ["ü", "ü".encode(), bytearray("ü".encode()), memoryview("ü".encode())])
def test_every_form_of_content_is_bytes(payload: Any) -> None:
    assert ChunkDecision.replace(payload).payloads == (b"\xc3\xbc",)
    assert SseEvent(payload).data == b"\xc3\xbc"


def test_they_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        VALUES[3].payloads = ()
    with pytest.raises(AttributeError, match="cannot be changed"):
        del VALUES[3].payloads
    with pytest.raises(AttributeError):
        EVENT.data = b""  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"ChunkDecision\.PASS"):
        ChunkDecision()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), ValueError, "at least one payload; DROP sends none"),
        ((None,), TypeError, "replace: expected str or bytes, got NoneType"),
        (("a", 1), TypeError, "replace: expected str or bytes, got int"),
        (("\ud800",), ValueError, "surrogates"),
    ],
)
def test_mistakes(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        ChunkDecision.replace(*arguments)
    assert isinstance(raised.value, DecisionError)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"data": None}, TypeError, "data: expected str or bytes, got NoneType"),
        ({"data": "a", "event": b"x"}, TypeError, "event: expected str, got bytes"),
        ({"data": "a", "event": "x\ny"}, ValueError, "event: 'x.*' is more than one line"),
        ({"data": "a", "event": "\ud800"}, ValueError, "surrogates"),
        ({"data": "a", "id": "x\0"}, ValueError, "id: 'x.*' is more than one line, or holds a NUL"),
        ({"data": "a", "id": "\r"}, ValueError, "id: "),
        ({"data": "a", "retry": 1.5}, TypeError, "retry: expected a whole number of milliseconds, got 1.5"),
        ({"data": "a", "retry": True}, TypeError, "retry: "),
        ({"data": "a", "retry": -1}, ValueError, "retry: expected 0 or more milliseconds, got -1"),
    ],
)
def test_mistakes_in_events(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        SseEvent(**fields)
    assert isinstance(raised.value, DecisionError)
