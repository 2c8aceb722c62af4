"""A filter of a stream, fed and read by a test: settings with a hook, a head of the media type, and the double between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from soth_mitm import ChunkDecision, StreamChunk
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import Hook, HookCounters, Hooks
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.decision import meant_to_block
from soth_mitm.proxy import tasks
from support.data_plane import every_setting
from support.doubles import load_double

Decide = Callable[[StreamChunk], Any]


class NoLoop:
    """Stands for a loop where nothing suspends."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> None:
        """A deadline was set, and does not come."""

    def call_soon(self, callback: Callable[..., object], *args: object, **kwargs: object) -> None:
        raise AssertionError("nothing is called later")


class Filter:
    """Settings of a proxy whose `filter_stream_chunk` is `decide`, and what it came to."""

    def __init__(
        self, decide: Decide, *, loop: Any = None, observed: bool = False, seconds: float = 60.0, block: bool = True, **changed: Any
    ):
        self.loop = NoLoop() if loop is None else loop
        self.asked: list[StreamChunk] = []
        self.reports: list[BaseException] = []
        self.counts = HookCounters()
        self.counters = Counters()
        self.arena = Arena()

        def ask(chunk: StreamChunk) -> Any:
            self.asked.append(chunk)
            return decide(chunk)

        deadline = DeadlineQueue(self.loop.call_later, seconds)
        hooks = Hooks(
            self.loop,
            tasks,
            lambda _, error: self.reports.append(error),
            lambda *_: None,
            self.counts,
            filter_stream_chunk=Hook(ask, "filter_stream_chunk", deadline),
            filtered=255,
            on_stream_chunk=Hook(lambda chunk: None, "on_stream_chunk", deadline) if observed else None,
            slow_seconds=60.0,
            recover=changed.pop("recover", True),
            block_on_failure=block,
        )
        values = {
            **every_setting(self.loop.call_later),
            "chunk_decision_type": ChunkDecision,
            "chunk_pass": ChunkDecision.PASS,
            "meant_to_block": meant_to_block,
            "body_limit": 1 << 20,
            **changed,
        }
        self.settings = Settings(self.arena, hooks, self.counters, **values)

    def stream(self, media_type: str, *, upper: bool = False, **headers: str) -> Any:
        """Return a stream of that type on its way through the filter."""
        return load_double("filtered").Filtered(self.settings, head_of(media_type, **headers), upper)

    @property
    def counted(self) -> tuple[int, int, int, int]:
        """Chunks passed, dropped, replaced, ended."""
        counters = self.counters
        return counters.chunks_passed, counters.chunks_dropped, counters.chunks_replaced, counters.chunks_ended


def head_of(media_type: str, **headers: str) -> Head:
    """Return the head of a response."""
    fields = {"Content-Type": media_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    parsed = HeadReader(False, 65536).feed(f"HTTP/1.1 200 OK\r\n{text}\r\n".encode())
    assert parsed is not None
    return parsed[0]


def through(decide: Decide, media_type: str, pieces: Iterable[bytes], **how: Any) -> bytes:
    """Return what leaves of a stream in these pieces."""
    stream = Filter(decide, **how).stream(media_type)
    for piece in pieces:
        stream.feed(piece)
    out: bytes = stream.finish()
    assert stream.counted == 0, "bytes are counted that are held no more"
    return out


async def settled(stream: Any) -> None:
    """Wait until the filter waits for no hook."""
    for _ in range(1_000_000):
        if not stream.is_waiting and not stream.waits:
            return
        await asyncio.sleep(0)
    raise AssertionError("the filter still waits for its hook")
