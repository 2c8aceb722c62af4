"""The tables of states: every state with every input, in the compiled table as in the one that people read."""

from __future__ import annotations

import itertools
import re

import pytest

from soth_mitm._dataplane.exchange import states
from soth_mitm._dataplane.http1 import connection_state
from soth_mitm._dataplane.memory.transitions import drawing
from soth_mitm._dataplane.transport import states as transport_states
from soth_mitm._dataplane.websocket import frame as websocket_frame
from soth_mitm._dataplane.websocket import windows as websocket_windows
from support.source import ROOT

Transitions = dict[str, dict[str, str]]

# What is wanted, by hand: state: {input: state that follows}; what is not here is a mistake
WANTED: dict[str, Transitions] = {
    "request": {
        "new": {
            **{"ask_route": "route", "collect": "collect", "decide": "decide", "resolve": "resolve", "acquire": "acquire"},
            **{"answer": "sent", "end": "ended"},
        },
        "route": {
            **{"collect": "collect", "decide": "decide", "resolve": "resolve", "acquire": "acquire"},
            **{"answer": "sent", "end": "ended"},
        },
        "collect": {"decide": "decide", "answer": "sent", "end": "ended"},
        "decide": {"resolve": "resolve", "acquire": "acquire", "answer": "sent", "end": "ended"},
        "resolve": {"acquire": "acquire", "answer": "sent", "end": "ended"},
        "acquire": {"send": "relay", "answer": "sent", "end": "ended"},
        "relay": {"sent": "sent", "answer": "sent", "retry": "acquire", "end": "ended"},
        "sent": {"answer": "sent", "retry": "acquire", "end": "ended"},
        "ended": {},
    },
    "response": {
        "none": {"expect": "head", "begin": "relay", "answered": "done"},
        "head": {"begin": "relay", "answered": "done", "again": "none", "switch": "switched", "decide": "decide"},
        "decide": {
            **{"begin": "relay", "answered": "done", "switch": "switched"},
            **{"hold": "collect", "decide_body": "decide_body", "own": "none"},
        },
        "collect": {"answered": "done", "decide_body": "decide_body"},
        "decide_body": {"begin": "relay", "answered": "done", "own": "none"},
        "relay": {"complete": "done"},
        "done": {},
        "switched": {},
    },
    "server": {
        "head": {"open": "exchange", "close": "closed"},
        "exchange": {"done": "head", "switch": "tunnel", "close": "closed"},
        "tunnel": {"close": "closed"},
        "closed": {},
    },
    "client": {
        "idle": {"acquire": "open", "close": "closed"},
        "open": {"request": "head", "release": "idle", "close": "closed"},
        "head": {"final_head": "content", "close": "closed"},
        "content": {"release": "idle", "close": "closed"},
        "closed": {},
    },
    "endpoint": {
        "new": {"made": "open"},
        "open": {"end_later": "ending", "end": "ended", "close": "closing", "lost": "gone"},
        "ending": {"end": "ended", "close": "closing", "lost": "gone"},
        "ended": {"close": "closing", "lost": "gone"},
        "closing": {"lost": "gone"},
        "gone": {},
    },
    "reading": {
        "open": {"get_fin": "fin", "tell": "ended"},
        "fin": {"tell": "finished"},
        "ended": {"get_fin": "finished"},
        "finished": {},
    },
    "backlog": {
        "none": {"hold": "some"},
        "some": {"fill": "full", "drain": "none"},
        "full": {"drain": "none"},
    },
    "tls": {
        "handshake": {"secure": "open", "fail": "failed"},
        "failed": {},
        "open": {"end": "ended", "shut_ours": "shut", "fail": "failed"},
        "ended": {"shut_ours": "closed"},
        "shut": {"end": "closed", "fail": "failed"},
        "closed": {},
    },
    "frames": {
        "open": {"whole": "open", "first": "message", "control": "open", "close": "closing"},
        "message": {"middle": "message", "last": "open", "control": "message", "close": "closing"},
        "closing": {},
    },
    "windows": {
        "equal": {"change": "own"},
        "own": {"change": "own", "fill": "equal"},
    },
}
TABLES = {
    "request": (states.request_transitions, states.REQUEST_STATE_NAMES, states.REQUEST_INPUT_NAMES),
    "response": (states.response_transitions, states.RESPONSE_STATE_NAMES, states.RESPONSE_INPUT_NAMES),
    "server": (connection_state.server_transitions, connection_state.SERVER_STATE_NAMES, connection_state.SERVER_INPUT_NAMES),
    "client": (connection_state.client_transitions, connection_state.CLIENT_STATE_NAMES, connection_state.CLIENT_INPUT_NAMES),
    **{
        name: (
            getattr(transport_states, f"{name}_transitions"),
            getattr(transport_states, f"{name.upper()}_STATE_NAMES"),
            getattr(transport_states, f"{name.upper()}_INPUT_NAMES"),
        )
        for name in ("endpoint", "reading", "backlog", "tls")
    },
    "frames": (websocket_frame.frames_transitions, websocket_frame.FRAMES_STATE_NAMES, websocket_frame.FRAMES_INPUT_NAMES),
    "windows": (websocket_windows.windows_transitions, websocket_windows.WINDOWS_STATE_NAMES, websocket_windows.WINDOWS_INPUT_NAMES),
}
PAIRS = [
    (machine, state, event)
    for machine, (_, state_names, input_names) in TABLES.items()
    for state, event in itertools.product(state_names, input_names)
]


@pytest.mark.parametrize(("machine", "state", "event"), PAIRS)
def test_every_state_with_every_input(machine: str, state: str, event: str) -> None:
    assert TABLES[machine][0]()[state].get(event) == WANTED[machine][state].get(event)


@pytest.mark.parametrize("machine", TABLES)
def test_every_input_moves_something(machine: str) -> None:
    transitions, _, input_names = TABLES[machine]
    assert {event for inputs in transitions().values() for event in inputs} == set(input_names)


@pytest.mark.parametrize("machine", TABLES)
def test_every_state_can_be_reached(machine: str) -> None:
    transitions, state_names, _ = TABLES[machine]
    reached = {state_names[0]}
    while more := {after for state in reached for after in transitions()[state].values()} - reached:
        reached |= more
    assert reached == set(state_names)


def test_a_request_is_sent_only_after_a_stream_was_acquired() -> None:
    assert [state for state, inputs in states.request_transitions().items() if "send" in inputs] == ["acquire"]


@pytest.mark.parametrize("machine", TABLES)
def test_the_drawings_are_those_of_the_tables(machine: str) -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawn = re.search(rf"<!-- states: {machine} -->\n```text\n(.*?)```", text, re.DOTALL)
    assert drawn is not None, f"docs/architecture.md has no drawing of the states of a {machine}"
    assert drawn[1] == drawing(TABLES[machine][0]()), "docs/architecture.md: paste what transitions.drawing() returns"


@pytest.mark.parametrize("name", states.EXPIRY_NAMES)
def test_what_a_deadline_does(name: str) -> None:
    _, status, _, text = states.EXPIRY_RULES[states.EXPIRY_NAMES.index(name)]
    assert (status == 0) == name.endswith("download"), "a response that has begun cannot be answered"
    assert status in (0, 408, 503, 504)
    assert re.search(r"(\(|; )(timeouts|upstream|connection_pool)\.\w+\)$", text), "the text names the key that sets the deadline"


@pytest.mark.parametrize("name", states.EXPIRY_NAMES)
def test_the_table_of_deadlines_is_that_of_the_rules(name: str) -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"docs/architecture.md has no row for the deadline {name}"
    action, status, counter, reason = states.EXPIRY_RULES[states.EXPIRY_NAMES.index(name)]
    wanted = [
        f"{status or '–'}",
        ("–", "`requests_refused`", "`upstream_timeouts`")[counter],
        ("answer", "truncate")[action],
        reason,
    ]
    assert [cell.strip() for cell in rows[0][3:]] == wanted
