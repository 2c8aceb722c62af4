"""The grammar of events, written down a second time: what follows what, and what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from soth_mitm.observe.event_states import CONNECTION, ENDED, FLOW, GONE, MOVING, NEW, EventChecker, Table, drawing
from soth_mitm.observe.flow_event import FlowEventKind

Kind = FlowEventKind
PAGE = Path(__file__).parents[3] / "docs" / "events.md"


def walk(table: Table, *kinds: FlowEventKind) -> tuple[str, int]:
    checker, state = EventChecker(), NEW
    for kind in kinds:
        state = checker.step(table, state, kind)
    return state, checker.illegal


CONNECTED = (Kind.CONNECTION_OPENED, Kind.CONNECT_RECEIVED, Kind.CONNECT_DECISION)
CLOSED = (Kind.STREAM_CLOSED, Kind.CONNECTION_CLOSED)
TLS = (Kind.TLS_HANDSHAKE_STARTED, Kind.TLS_HANDSHAKE_SUCCEEDED)


@pytest.mark.parametrize(
    "kinds",
    [
        (Kind.CONNECTION_OPENED, *CLOSED),
        (*CONNECTED, *CLOSED),
        (Kind.CONNECTION_OPENED, Kind.CONNECT_PARSE_FAILED, *CLOSED),
        (*CONNECTED, *TLS, Kind.REQUEST_HEADERS, Kind.REQUEST_HEADERS, *CLOSED),
        (*CONNECTED, Kind.TLS_HANDSHAKE_STARTED, Kind.TLS_HANDSHAKE_FAILED, Kind.TLS_LEARNING_AUDIT, *CLOSED),
        (*CONNECTED, *TLS, Kind.TLS_HANDSHAKE_FAILED, *CLOSED),
        (*CONNECTED, Kind.REQUEST_HEADERS, *CONNECTED[1:], Kind.REQUEST_HEADERS, *CLOSED),
    ],
    ids=str,
)
def test_connections(kinds: tuple[FlowEventKind, ...]) -> None:
    assert walk(CONNECTION, *kinds) == (GONE, 0)


@pytest.mark.parametrize(
    "kinds",
    [
        (),
        (Kind.REQUEST_HEADERS,),
        (Kind.REQUEST_HEADERS, Kind.REQUEST_DECISION, *TLS, Kind.REQUEST_BODY_CHUNK, Kind.RESPONSE_HEADERS, Kind.RESPONSE_BODY_CHUNK),
        (Kind.REQUEST_HEADERS, Kind.GRPC_REQUEST_HEADERS, Kind.RESPONSE_HEADERS, Kind.GRPC_RESPONSE_HEADERS, Kind.GRPC_RESPONSE_TRAILERS),
        (Kind.REQUEST_HEADERS, Kind.RESPONSE_HEADERS, Kind.SSE_EVENT, Kind.RESPONSE_BODY_CHUNK, Kind.SSE_EVENT),
        (Kind.REQUEST_HEADERS, Kind.RESPONSE_HEADERS, Kind.WEBSOCKET_OPENED, Kind.WEBSOCKET_FRAME, Kind.WEBSOCKET_CLOSED),
    ],
    ids=str,
)
def test_flows(kinds: tuple[FlowEventKind, ...]) -> None:
    assert walk(FLOW, *kinds, Kind.STREAM_CLOSED) == (ENDED, 0)


@pytest.mark.parametrize(
    ("table", "kinds", "state"),
    [
        (CONNECTION, (Kind.CONNECT_RECEIVED,), NEW),
        (CONNECTION, (Kind.CONNECTION_OPENED, Kind.REQUEST_HEADERS), "accepted"),
        (CONNECTION, (*CONNECTED, Kind.TLS_HANDSHAKE_SUCCEEDED), "policy_decided"),
        (CONNECTION, (*CONNECTED, *CLOSED, Kind.STREAM_CLOSED), GONE),
        (CONNECTION, (Kind.CONNECTION_OPENED, Kind.STREAM_CLOSED, Kind.TLS_LEARNING_AUDIT), "closed"),
        (FLOW, (Kind.RESPONSE_HEADERS,), NEW),
        (FLOW, (Kind.REQUEST_HEADERS, Kind.SSE_EVENT), "requested"),
        (FLOW, (Kind.REQUEST_HEADERS, Kind.RESPONSE_HEADERS, Kind.RESPONSE_HEADERS), "answered"),
        (FLOW, (Kind.STREAM_CLOSED, Kind.STREAM_CLOSED), ENDED),
    ],
    ids=str,
)
def test_what_may_not_come_is_counted_and_changes_no_state(table: Table, kinds: tuple[FlowEventKind, ...], state: str) -> None:
    assert walk(table, *kinds) == (state, 1)


def test_every_state_can_be_reached_and_left() -> None:
    for table, last in ((CONNECTION, GONE), (FLOW, ENDED)):
        reached = {following for steps in table.values() for following in steps.values()}
        assert reached | {NEW} == set(table)
        assert all(steps for state, steps in table.items() if state != last)


def test_what_moves_is_what_a_checker_needs() -> None:
    assert Kind.REQUEST_BODY_CHUNK not in MOVING
    assert {Kind.REQUEST_HEADERS, Kind.STREAM_CLOSED, Kind.CONNECTION_CLOSED} <= MOVING


def test_the_page_has_the_drawing() -> None:
    assert drawing() in PAGE.read_text()
