"""Turns of a WebSocket: one side speaks, the other one answers, until the first one speaks again or both are silent."""

import asyncio
from collections.abc import Callable

from soth_mitm.observe.flow_event import FlowEventKind

# Silence for so long ends a turn.
SILENCE_SECONDS = 0.75

Attributes = dict[str, str | int]


class WebSocketTurns:
    """Follows the messages of one WebSocket. `tell(kind, attributes)` hears of its turns, on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[FlowEventKind, Attributes], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._number = 0
        self._is_open = False
        self._by_client = False
        self._was_answered = False
        # messages and bytes of the client, and of the upstream
        self._counts = [0, 0, 0, 0]
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def message(self, to_client: bool, size: int) -> None:
        """A text or binary message has passed."""
        by_client = not to_client
        if self._is_open and by_client == self._by_client and self._was_answered:
            self._complete("next_turn")
        if not self._is_open:
            self._begin(by_client)
        place = 0 if by_client else 2
        self._counts[place] += 1
        self._counts[place + 1] += size
        self._was_answered = self._was_answered or by_client != self._by_client
        self._last = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(SILENCE_SECONDS, self._check_silence)

    def end(self) -> None:
        """The WebSocket is over."""
        if self._is_open:
            self._complete("end")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, by_client: bool) -> None:
        self._number += 1
        self._is_open = True
        self._by_client = by_client
        self._was_answered = False
        self._counts = [0, 0, 0, 0]
        self._tell(FlowEventKind.WEBSOCKET_TURN_STARTED, {"initiated_by": self._side, "turn_id": self._number})

    @property
    def _side(self) -> str:
        return "client" if self._by_client else "upstream"

    def _complete(self, why: str) -> None:
        self._is_open = False
        client_frames, client_bytes, upstream_frames, upstream_bytes = self._counts
        self._tell(
            FlowEventKind.WEBSOCKET_TURN_COMPLETED,
            {
                "client_bytes": client_bytes,
                "client_frames": client_frames,
                "flush_reason": why,
                "initiated_by": self._side,
                "turn_id": self._number,
                "upstream_bytes": upstream_bytes,
                "upstream_frames": upstream_frames,
            },
        )

    def _check_silence(self) -> None:
        self._timer = None
        if not self._is_open:
            return
        left = self._last + SILENCE_SECONDS - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_silence)
        else:
            self._complete("silence")
