"""Turns of a WebSocket: who speaks, who answers, and what ends a turn."""

from __future__ import annotations

from collections.abc import Callable

from soth_mitm.observe.flow_event import FlowEventKind
from soth_mitm.observe.websocket_turns import SILENCE_SECONDS, WebSocketTurns


class Clock:
    """A loop that has a time and timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Clock:
        self.timers.append((self.now + seconds, call))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for at, call in [timer for timer in self.timers if timer[0] <= self.now]:
            self.timers.remove((at, call))
            call()


def made() -> tuple[WebSocketTurns, Clock, list[tuple[str, dict[str, str | int]]]]:
    told: list[tuple[str, dict[str, str | int]]] = []
    clock = Clock()
    turns = WebSocketTurns(clock, lambda kind, attributes: told.append((str(kind), attributes)))  # type: ignore[arg-type]
    return turns, clock, told


def test_a_turn_ends_when_its_initiator_speaks_again_after_an_answer() -> None:
    turns, _, told = made()
    for to_client, size in ((False, 5), (False, 6), (True, 100), (True, 200), (False, 7)):
        turns.message(to_client, size)
    turns.end()
    counts = {"client_bytes": 11, "client_frames": 2, "upstream_bytes": 300, "upstream_frames": 2}
    assert told == [
        (FlowEventKind.WEBSOCKET_TURN_STARTED, {"initiated_by": "client", "turn_id": 1}),
        (FlowEventKind.WEBSOCKET_TURN_COMPLETED, {**counts, "flush_reason": "next_turn", "initiated_by": "client", "turn_id": 1}),
        (FlowEventKind.WEBSOCKET_TURN_STARTED, {"initiated_by": "client", "turn_id": 2}),
        (
            FlowEventKind.WEBSOCKET_TURN_COMPLETED,
            {
                **dict.fromkeys(counts, 0),
                "client_bytes": 7,
                "client_frames": 1,
                "flush_reason": "end",
                "initiated_by": "client",
                "turn_id": 2,
            },
        ),
    ]


def test_silence_ends_a_turn_and_more_messages_put_it_off() -> None:
    turns, clock, told = made()
    turns.message(True, 1)
    clock.pass_time(SILENCE_SECONDS - 0.25)
    turns.message(True, 1)
    clock.pass_time(0.5)
    assert len(told) == 1
    clock.pass_time(SILENCE_SECONDS - 0.25)
    assert told[-1][0] == FlowEventKind.WEBSOCKET_TURN_COMPLETED
    assert told[-1][1]["flush_reason"] == "silence"
    assert told[-1][1]["upstream_frames"] == 2
    # nothing is due while nobody speaks
    assert clock.timers == []
    turns.message(False, 1)
    assert told[-1][1] == {"initiated_by": "client", "turn_id": 2}
    turns.end()
    assert clock.timers == []


def test_without_messages_there_are_no_turns() -> None:
    turns, clock, told = made()
    turns.end()
    assert (told, clock.timers) == ([], [])
