"""The grammar of events: which may follow which, of a connection and of a flow, as tables; and what checks that they do.

docs/events.md has the drawing, made from the tables. What comes where it may not is counted, and changes nothing else.
"""

from collections.abc import Mapping

from soth_mitm.observe.flow_event import FlowEventKind as Kind

Table = Mapping[str, Mapping[Kind, str]]

# the first state of each
NEW = "new"
# the last one of a connection, and of a flow
GONE, ENDED = "gone", "ended"

_ANY_TIME = (Kind.TLS_LEARNING_AUDIT,)
_TLS_FAILED = {Kind.TLS_HANDSHAKE_FAILED: "stream_closing"}
_PARSE_FAILED = {Kind.CONNECT_PARSE_FAILED: "stream_closing"}
_REQUEST = {Kind.REQUEST_HEADERS: "protocol_active"}


def _connection(state: str, steps: Mapping[Kind, str]) -> dict[Kind, str]:
    return {**steps, **dict.fromkeys(_ANY_TIME, state), Kind.STREAM_CLOSED: "closed"}


# State, event: the state that follows. Events of the client's side, and the first of each request
CONNECTION: Table = {
    NEW: {Kind.CONNECTION_OPENED: "accepted"},
    **{
        state: _connection(state, steps)
        for state, steps in {
            "accepted": {Kind.CONNECT_RECEIVED: "connect_parsed", **_PARSE_FAILED},
            # a request is here already where on_connect is asked about its destination, and may end meanwhile
            "connect_parsed": {Kind.CONNECT_DECISION: "policy_decided", **_PARSE_FAILED, **_REQUEST},
            # a tunnel stays here
            "policy_decided": {
                Kind.HTTP3_PASSTHROUGH: "policy_decided",
                Kind.TLS_HANDSHAKE_STARTED: "tls_started",
                **_TLS_FAILED,
                **_REQUEST,
            },
            "tls_started": {Kind.TLS_HANDSHAKE_SUCCEEDED: "tls_ready", **_TLS_FAILED},
            "tls_ready": {**_TLS_FAILED, **_REQUEST},
            "protocol_active": {**_REQUEST, Kind.CONNECT_RECEIVED: "connect_parsed"},
            "stream_closing": {},
        }.items()
    },
    "closed": {Kind.CONNECTION_CLOSED: GONE},
    GONE: {},
}


def _flow(state: str, stays: tuple[Kind, ...], steps: Mapping[Kind, str]) -> dict[Kind, str]:
    return {**dict.fromkeys((*stays, Kind.MODEL_CALL), state), **steps, Kind.STREAM_CLOSED: ENDED}


_CHUNKS = (Kind.REQUEST_BODY_CHUNK, Kind.RESPONSE_BODY_CHUNK)
_GRPC = (Kind.GRPC_RESPONSE_HEADERS, Kind.GRPC_RESPONSE_TRAILERS)

FLOW: Table = {
    # a tunnel, and what was refused before it had a request, have their end only
    NEW: _flow(NEW, (), {Kind.REQUEST_HEADERS: "requested"}),
    "requested": _flow(
        "requested",
        (
            Kind.REQUEST_BODY_CHUNK,
            Kind.REQUEST_DECISION,
            Kind.GRPC_REQUEST_HEADERS,
            Kind.TLS_HANDSHAKE_STARTED,
            Kind.TLS_HANDSHAKE_SUCCEEDED,
            Kind.TLS_HANDSHAKE_FAILED,
        ),
        # an interim one stays
        {Kind.RESPONSE_HEADERS: "answered"},
    ),
    # where it applies no decision, the handler may be asked when the response has begun
    "answered": _flow(
        "answered",
        (*_CHUNKS, *_GRPC, Kind.REQUEST_DECISION),
        {Kind.SSE_EVENT: "streaming", Kind.WEBSOCKET_OPENED: "streaming"},
    ),
    "streaming": _flow(
        "streaming",
        (
            *_CHUNKS,
            Kind.REQUEST_DECISION,
            Kind.SSE_EVENT,
            Kind.WEBSOCKET_FRAME,
            Kind.WEBSOCKET_TURN_STARTED,
            Kind.WEBSOCKET_TURN_COMPLETED,
        ),
        {Kind.WEBSOCKET_CLOSED: "ending"},
    ),
    "ending": _flow("ending", (), {}),
    ENDED: {Kind.MODEL_CALL: ENDED},
}

# What changes a state: without all of these no state is known
MOVING = frozenset(
    kind for table in (CONNECTION, FLOW) for state, steps in table.items() for kind, following in steps.items() if following != state
) - {Kind.HTTP3_PASSTHROUGH, Kind.TLS_LEARNING_AUDIT}


class EventChecker:
    """Follows connections and flows through their states. Whoever calls keeps the states."""

    def __init__(self) -> None:
        self.illegal = 0

    def step(self, table: Table, state: str, kind: Kind) -> str:
        """Return the state that follows; an event that may not come there is counted, and leaves the state as it is."""
        following = table[state].get(kind)
        if following is None:
            self.illegal += 1
            return state
        return following


def drawing() -> str:
    """Return both tables as text: a line for each state, with what leads to which."""
    lines = []
    for title, table in (("connection", CONNECTION), ("flow", FLOW)):
        lines.append(title)
        for state, steps in table.items():
            by_following: dict[str, list[str]] = {}
            for kind, following in steps.items():
                by_following.setdefault(following, []).append(str(kind))
            lines.append(f"  {state}")
            lines += [
                f"    {' · '.join(kinds)}" + (" (stays)" if following == state else f" -> {following}")
                for following, kinds in by_following.items()
            ]
    return "\n".join(lines)
