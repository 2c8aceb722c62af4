"""What a handler may say of one frame of a stream before it is relayed: let it pass, drop it, replace it, or end the stream."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NoReturn, final

from soth_mitm.message_parts import Content, checked

ChunkKind = Literal["pass", "drop", "replace", "end"]


@final
@dataclass(frozen=True, slots=True)
class SseEvent:
    """A server-sent event for `ChunkDecision.replace`, with the fields that a stream of events may have.

    `data` is the value of its data lines; a line of it ends at a line feed, a carriage return, or both. `event` and `id` are one line,
    without NUL; `retry` is in milliseconds. None: the event has no such field. Text is sent as UTF-8. `DecisionValueError` and
    `DecisionTypeError` say what is wrong.
    """

    data: Content
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        """Check the fields where the mistake is made."""
        _check_event(self)


@checked
def _check_event(event: SseEvent) -> None:
    object.__setattr__(event, "data", _bytes_of(event.data, "data"))
    for name, text in (("event", event.event), ("id", event.id)):
        if text is None:
            continue
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected str, got {type(text).__name__}")
        if any(character in text for character in "\r\n\0"):
            raise ValueError(f"{name}: {text!r} is more than one line, or holds a NUL")
        text.encode()
    if event.retry is None:
        return
    if isinstance(event.retry, bool) or not isinstance(event.retry, int):
        raise TypeError(f"retry: expected a whole number of milliseconds, got {event.retry!r}")
    if event.retry < 0:
        raise ValueError(f"retry: expected 0 or more milliseconds, got {event.retry}")


@final
class ChunkDecision:
    """The answer of `filter_stream_chunk`. Immutable; `PASS`, `DROP`, `END`, or made by `replace`, never by calling the class.

    `kind` is the name of the four, in lower case; `payloads` are those of a `replace`, as bytes or `SseEvent`, else empty. Two that do
    the same are equal.

    `END`: a stream ends behind what was relayed, and its upstream is cancelled. A client of gRPC gets PERMISSION_DENIED. A WebSocket is
    closed with 1008.
    """

    __slots__ = ("kind", "payloads")

    kind: ChunkKind
    payloads: tuple[bytes | SseEvent, ...]

    PASS: ClassVar["ChunkDecision"]
    DROP: ClassVar["ChunkDecision"]
    END: ClassVar["ChunkDecision"]

    def __init__(self) -> None:
        raise TypeError("use ChunkDecision.PASS, .DROP, .END or .replace(*payloads)")

    @staticmethod
    @checked
    def replace(*payloads: Content | SseEvent) -> "ChunkDecision":
        """Send these instead, each as a frame of its own. Text is sent as UTF-8.

        Bytes and text take the kind of the chunk. In a stream of events the first payload takes all lines of the original but the data
        lines; any further one has data lines only. An `SseEvent` says all fields itself, and is for such streams only.

        `DecisionValueError` and `DecisionTypeError` say what is wrong, where the mistake is made; raised out of `filter_stream_chunk` they
        end the stream. What is wrong with this chunk only is a failure of the hook, and ends the stream as well: a line feed in a line of
        NDJSON, an `SseEvent` for another kind of stream, a replacement for a chunk that is `truncated`.
        """
        if not payloads:
            raise ValueError("replace: expected at least one payload; DROP sends none")
        return _make("replace", tuple(each if isinstance(each, SseEvent) else _bytes_of(each, "replace") for each in payloads))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a ChunkDecision cannot be changed; make another one (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a ChunkDecision cannot be changed (tried to delete {name!r})")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChunkDecision):
            return NotImplemented
        return (self.kind, self.payloads) == (other.kind, other.payloads)

    def __hash__(self) -> int:
        return hash((self.kind, self.payloads))

    def __reduce__(self) -> str | tuple[object, ...]:
        if self.kind == "replace":
            return (ChunkDecision.replace, self.payloads)
        return f"ChunkDecision.{self.kind.upper()}"

    def __repr__(self) -> str:
        if self.kind != "replace":
            return f"ChunkDecision.{self.kind.upper()}"
        shown = [repr(each) if isinstance(each, SseEvent) or len(each) <= 60 else repr(each[:57] + b"...") for each in self.payloads]
        return f"ChunkDecision.replace({', '.join(shown)})"


def _bytes_of(payload: Content, what: str) -> bytes:
    if isinstance(payload, str):
        return payload.encode()
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise TypeError(f"{what}: expected str or bytes, got {type(payload).__name__}")
    return bytes(payload)


def _make(kind: ChunkKind, payloads: tuple[bytes | SseEvent, ...] = ()) -> ChunkDecision:
    decision = object.__new__(ChunkDecision)
    object.__setattr__(decision, "kind", kind)
    object.__setattr__(decision, "payloads", payloads)
    return decision


ChunkDecision.PASS = _make("pass")
ChunkDecision.DROP = _make("drop")
ChunkDecision.END = _make("end")
