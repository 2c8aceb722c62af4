"""The states of an HTTP/2 stream: every state with every event, the memory of those that are closed, and the drawing in the docs."""

import pytest

from soth_mitm._dataplane.http2.stream_state import ANSWER_NAMES, EVENT_NAMES, STATE_NAMES, change, draw_states, remembered, state_after
from support.source import ROOT

IDLE, OPEN, LOCAL_ENDED, REMOTE_ENDED, ENDED, WE_RESET, PEER_RESET = range(7)
HEADERS, DATA, END, RESET, WINDOW, PRIORITY, SEND_HEADERS, SEND_DATA, SEND_END, SEND_RESET, SEND_WINDOW = range(11)
IGNORE, CLOSED, CLOSED_FATAL, PROTOCOL, BUG = -1, -2, -3, -4, -5

# RFC 9113 section 5.1, written out once more
EXPECTED = {
    IDLE: {HEADERS: OPEN, DATA: PROTOCOL, END: PROTOCOL, RESET: PROTOCOL, WINDOW: PROTOCOL, PRIORITY: IDLE, SEND_HEADERS: OPEN},
    OPEN: {
        HEADERS: OPEN,
        DATA: OPEN,
        END: REMOTE_ENDED,
        RESET: PEER_RESET,
        WINDOW: OPEN,
        PRIORITY: OPEN,
        SEND_HEADERS: OPEN,
        SEND_DATA: OPEN,
        SEND_END: LOCAL_ENDED,
        SEND_RESET: WE_RESET,
        SEND_WINDOW: OPEN,
    },
    LOCAL_ENDED: {
        HEADERS: LOCAL_ENDED,
        DATA: LOCAL_ENDED,
        END: ENDED,
        RESET: PEER_RESET,
        WINDOW: LOCAL_ENDED,
        PRIORITY: LOCAL_ENDED,
        SEND_RESET: WE_RESET,
        SEND_WINDOW: LOCAL_ENDED,
    },
    REMOTE_ENDED: {
        HEADERS: CLOSED,
        DATA: CLOSED,
        END: CLOSED,
        RESET: PEER_RESET,
        WINDOW: REMOTE_ENDED,
        PRIORITY: REMOTE_ENDED,
        SEND_HEADERS: REMOTE_ENDED,
        SEND_DATA: REMOTE_ENDED,
        SEND_END: ENDED,
        SEND_RESET: WE_RESET,
    },
    ENDED: {HEADERS: CLOSED_FATAL, DATA: CLOSED_FATAL, END: CLOSED_FATAL, RESET: IGNORE, WINDOW: IGNORE, PRIORITY: IGNORE},
    # rule 57
    WE_RESET: {HEADERS: IGNORE, DATA: IGNORE, END: IGNORE, RESET: IGNORE, WINDOW: IGNORE, PRIORITY: IGNORE},
    PEER_RESET: {HEADERS: CLOSED, DATA: CLOSED, END: CLOSED, RESET: IGNORE, WINDOW: IGNORE, PRIORITY: IGNORE},
}


@pytest.mark.parametrize("event", range(len(EVENT_NAMES)), ids=EVENT_NAMES)
@pytest.mark.parametrize("state", range(len(STATE_NAMES)), ids=STATE_NAMES)
def test_every_state_with_every_event(state: int, event: int) -> None:
    expected = EXPECTED[state].get(event, BUG)
    assert state_after(state, event) == expected
    assert change(state, event) == ((expected, 0) if expected >= 0 else (state, expected))


def test_what_is_no_state_is_refused() -> None:
    for state, event in ((-1, 0), (7, 0), (0, -1), (0, 11)):
        with pytest.raises(ValueError, match="no such"):
            state_after(state, event)


def test_nothing_leaves_a_closed_stream() -> None:
    for state in (ENDED, WE_RESET, PEER_RESET):
        assert all(state_after(state, event) < 0 for event in range(len(EVENT_NAMES)))


def test_memory_of_closed_streams() -> None:
    closed = [(number, ENDED if number % 3 else WE_RESET) for number in range(1, 2 * 128, 2)]
    assert len(closed) == 128
    assert remembered(closed, 1) == (ENDED, 0)
    assert remembered(closed, 3) == (WE_RESET, 0)
    assert remembered(closed, 255) == (WE_RESET, 0)
    assert remembered(closed, 257) == (IDLE, 0)
    # the one that closed first gives its place up
    assert remembered([*closed, (257, PEER_RESET)], 1) == (IDLE, 1)
    assert remembered([*closed, (257, PEER_RESET)], 257) == (PEER_RESET, 1)


def test_the_highest_that_is_forgotten() -> None:
    closed = [(1001, ENDED), (5, ENDED), *((number, ENDED) for number in range(2001, 2001 + 2 * 128, 2))]
    assert remembered(closed, 1001) == (IDLE, 1001)
    assert remembered(closed, 5) == (IDLE, 1001)


def test_the_drawing_in_the_docs_is_that_of_the_table() -> None:
    page = (ROOT / "docs" / "http2.md").read_text(encoding="utf-8")
    assert f"```text\n{draw_states()}```\n" in page, "docs/http2.md: replace the drawing by what draw_states() returns"


def test_the_drawing_shows_what_it_should() -> None:
    drawing = draw_states().splitlines()
    assert "open -- receive END_STREAM --> remote ended" in drawing
    assert "ended: receive HEADERS, receive DATA, receive END_STREAM: connection error STREAM_CLOSED" in drawing
    assert not any(ANSWER_NAMES[BUG] in line for line in drawing)
