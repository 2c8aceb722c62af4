"""Feed a framer in every way in which a network could."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from soth_mitm._dataplane.http.messages import StreamChunk
from soth_mitm._dataplane.wire.framer import Framer


def frames_of(framer: Framer, pieces: Iterable[bytes]) -> list[StreamChunk]:
    """Feed the pieces and end the stream."""
    frames = [frame for piece in pieces for frame in framer.frames(piece)]
    return frames + framer.last_frames()


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Yield `data` whole, byte by byte, and cut in two at every place."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut `data` at places, taken modulo its length."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def facts(frame: StreamChunk) -> tuple[object, ...]:
    """Everything that a framer says about a frame, comparable."""
    return frame.payload, frame.frame_kind, frame.truncated, frame.event_type, frame.event_id, frame.retry, frame.complete


def facts_of_every_split(make: Callable[[], Framer], data: bytes) -> list[tuple[object, ...]]:
    """Return the facts of the frames in `data`, after having seen that no split changes them or the number of errors."""
    expected: tuple[list[tuple[object, ...]], int, bool] | None = None
    for pieces in splits(data):
        framer = make()
        found = [facts(frame) for frame in frames_of(framer, pieces)], framer.error_count, framer.failed
        expected = expected or found
        assert found == expected, f"cut as {[len(piece) for piece in pieces][:4]} the frames differ"
    assert expected is not None
    return expected[0]
