"""What event sinks are told of one proxy: its connections, its tunnels and what it refused, and what the data plane notes of requests.

Everything here is called by the proxy's loop, and only where there are sinks.
"""

import asyncio
import time
from typing import Any, Protocol
from uuid import UUID

from soth_mitm._dataplane.exchange.flow_recording import FlowFacts, FlowRecording, Recorder
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm.addresses import format_host_port
from soth_mitm.connection import ConnectionMeta, TlsInfo, UnixDomain
from soth_mitm.metrics import FLOW_OUTCOMES, FLOW_PROTOCOLS
from soth_mitm.observe.event_states import CONNECTION, FLOW, MOVING, NEW, EventChecker
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import FlowKind
from soth_mitm.observe.observation import CLOSED_BY, Verdict, cause_text
from soth_mitm.observe.recorded_flow import ANSWERED_BY, KINDS, RecordedFlow, destination
from soth_mitm.observe.sink_feeds import SinkFeeds
from soth_mitm.observe.websocket_turns import WebSocketTurns

Attributes = dict[str, str | int]
Kind = FlowEventKind

# by their place in the data plane
PLACES = tuple(FlowEventKind)
TURNS = frozenset({Kind.WEBSOCKET_TURN_STARTED, Kind.WEBSOCKET_TURN_COMPLETED})
_TUNNEL = FLOW_PROTOCOLS.index("tunnel")
_GRPC = FLOW_PROTOCOLS.index("grpc")
# of a flow, why it ended; else `mitm_http_error`
_REASONS = {
    "blocked": "blocked",
    "upstream_timeout": "stream_stage_timeout",
    "answered": "mitm_http_completed",
    "responded": "mitm_http_completed",
    "aborted": "mitm_http_completed",
}
_ENDED_BY = {
    "cut_by_client": "client",
    "cut_by_upstream": "upstream",
    "upstream_error": "upstream",
    "upstream_timeout": "upstream",
    "blocked": "proxy",
    "responded": "handler",
    "aborted": "handler",
    "refused": "proxy",
    "cut_by_proxy": "proxy",
}


# of refusals, by status
_REFUSALS = {502: "upstream_error", 503: "upstream_error", 504: "upstream_timeout"}


class ProxyRecording:
    """What is recorded of one proxy, for all its sinks."""

    def __init__(self, feeds: SinkFeeds, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._feeds = feeds
        self._loop = loop
        self._counters = counters
        self.kinds = feeds.kinds
        self._wants_turns = bool(self.kinds & TURNS)
        self._checker = EventChecker() if self.kinds >= MOVING else None
        self._events = 0
        self._open: dict[UUID, ConnectionRecording] = {}
        self.recorder = Recorder(
            loop,
            self._on_flow,
            self._on_event,
            events=sum(1 << place for place, kind in enumerate(PLACES) if kind in self.kinds),
            flows=feeds.flows,
            content=feeds.content,
            messages=feeds.messages,
        )

    # --- connections

    def connection(self, client: "RecordedClient") -> "ConnectionRecording":
        """Begin to record a connection."""
        connection = ConnectionRecording(self, client)
        self._open[connection.connection_id] = connection
        connection.event(Kind.CONNECTION_OPENED, {})
        return connection

    def forget(self, connection: "ConnectionRecording") -> None:
        """A connection is over."""
        self._open.pop(connection.connection_id, None)

    def learning_audit(self, connection_id: UUID, action: str, host: str, process: str) -> None:
        """Something was learnt of how the client of a connection takes our certificate."""
        connection = self._open.get(connection_id)
        if connection is not None:
            connection.event(Kind.TLS_LEARNING_AUDIT, {"action": action, "host": host, "process": process})

    def next_flow_id(self) -> int:
        """Return the id of a flow that is no exchange."""
        self._counters.last_flow_id += 1
        return self._counters.last_flow_id

    # --- what the data plane tells

    def _on_flow(self, recording: FlowRecording, facts: FlowFacts) -> None:
        if facts.is_over:
            connection = self._connection_of(recording)
            if connection is not None:
                connection.flow_ended(facts)
            if Kind.STREAM_CLOSED in self.kinds:
                self.flow_event(recording, Kind.STREAM_CLOSED, _end_of_flow(facts))
        if self._feeds.flows:
            self._feeds.push_flow(RecordedFlow(facts))

    def _on_event(self, recording: FlowRecording, place: int, attributes: dict[str, Any]) -> None:
        kind = PLACES[place]
        if kind is Kind.WEBSOCKET_OPENED and self._wants_turns:
            recording.turns = WebSocketTurns(self._loop, lambda turn, about: self._tell_turn(recording, turn, about))
        elif kind is Kind.WEBSOCKET_CLOSED and recording.turns is not None:
            recording.turns.end()
            recording.turns = None
        elif kind is Kind.WEBSOCKET_FRAME and recording.turns is not None and attributes["opcode"] in (1, 2):
            recording.turns.message(attributes["direction"] == "to_client", attributes["bytes"])
        if kind in self.kinds:
            self.flow_event(recording, kind, _in_words(kind, attributes))

    def _tell_turn(self, recording: FlowRecording, kind: FlowEventKind, attributes: Attributes) -> None:
        if kind in self.kinds:
            self.flow_event(recording, kind, attributes)

    def _connection_of(self, recording: FlowRecording) -> "ConnectionRecording | None":
        if recording.connection is None and recording.route is not None:
            recording.connection = self._open.get(recording.route.meta.connection_id)
        connection: ConnectionRecording | None = recording.connection
        return connection

    # --- events

    def flow_event(self, recording: FlowRecording, kind: FlowEventKind, attributes: Attributes) -> None:
        """Emit an event of a flow, of a kind that is wanted."""
        connection = self._connection_of(recording)
        if connection is None:
            # it is over, and so is all that is told of it
            return
        if self._checker is not None:
            self._check(recording, connection, kind, attributes)
        if kind is Kind.REQUEST_HEADERS:
            connection.speaks(FLOW_PROTOCOLS[recording.protocol])
        recording.event_count += 1
        host, port = connection.destination_of(recording)
        protocol = FLOW_PROTOCOLS[_GRPC if recording.is_grpc and recording.protocol < 2 else recording.protocol]
        self._emit(kind, connection, recording.flow_id, recording.event_count, protocol, host, port, recording.stream_id, attributes)

    def _check(self, recording: FlowRecording, connection: "ConnectionRecording", kind: FlowEventKind, attributes: Attributes) -> None:
        assert self._checker is not None
        checker = self._checker
        if kind is Kind.REQUEST_HEADERS:
            connection.open_flows += 1
            connection.state = checker.step(CONNECTION, connection.state, kind)
        elif kind is Kind.STREAM_CLOSED and recording.state is not None:
            connection.open_flows -= 1
        if not (kind is Kind.RESPONSE_HEADERS and attributes.get("interim")):
            recording.state = checker.step(FLOW, recording.state or NEW, kind)
        elif recording.state != "requested":
            checker.illegal += 1
        self._feeds.illegal_steps = checker.illegal

    def connection_event(self, connection: "ConnectionRecording", kind: FlowEventKind, attributes: Attributes, protocol: str) -> None:
        """Emit an event of a connection, if it is wanted."""
        if kind not in self.kinds:
            return
        if self._checker is not None:
            is_early = kind in (Kind.CONNECT_RECEIVED, Kind.STREAM_CLOSED) and connection.open_flows > 0
            self._checker.illegal += is_early
            connection.state = self._checker.step(CONNECTION, connection.state, kind)
            self._feeds.illegal_steps = self._checker.illegal
        connection.event_count += 1
        host, port = connection.target
        self._emit(kind, connection, 0, connection.event_count, protocol, host, port, 0, attributes)

    def _emit(
        self,
        kind: FlowEventKind,
        connection: "ConnectionRecording",
        flow_id: int,
        number: int,
        protocol: str,
        host: str,
        port: int,
        stream_id: int,
        attributes: Attributes,
    ) -> None:
        self._events += 1
        if stream_id:
            stream_key = f"h2:{stream_id}"
        elif "turn_id" in attributes:
            stream_key = f"ws_turn:{attributes['turn_id']}"
        elif kind is Kind.SSE_EVENT:
            stream_key = f"sequence:{attributes['sequence_no']}"
        elif kind is Kind.GRPC_REQUEST_HEADERS:
            stream_key = f"grpc:/{attributes['service']}/{attributes['method']}:{number}"
        else:
            stream_key = f"flow:{flow_id}:{number}"
        self._feeds.push_event(
            FlowEvent(
                sequence_id=self._events,
                flow_id=flow_id,
                flow_sequence_id=number,
                kind=kind,
                protocol=protocol,
                stream_key=stream_key,
                connection_id=str(connection.connection_id),
                client_addr=connection.client_addr,
                server_host=host,
                server_port=port,
                attributes=dict(sorted(attributes.items())),
                unix_us=time.time_ns() // 1000,
            )
        )

    # --- flows that are no requests

    def refused(self, connection: "ConnectionRecording", facts: FlowFacts) -> None:
        """Hand over a flow that was over as soon as it began."""
        recording = self.recorder.recording(facts.flow_id)
        recording.connection = connection
        recording.describe = lambda made: _copy(facts, made)
        recording.finish()


class RecordedClient(Protocol):
    """A connection as the set-up knows it."""

    meta: ConnectionMeta

    @property
    def octets(self) -> tuple[int, int]:
        """Bytes that came from the client, and that went to it."""


class ConnectionRecording:
    """What is recorded of one connection: its events, its tunnel, and why it was refused."""

    def __init__(self, proxy: ProxyRecording, client: RecordedClient) -> None:
        self._proxy = proxy
        self._client: RecordedClient | None = client
        self.connection_id = client.meta.connection_id
        family = client.meta.socket_family
        self.client_addr = f"unix:{family.path}" if isinstance(family, UnixDomain) else format_host_port(*family.remote)
        self.state = NEW
        self.event_count = 0
        self.open_flows = 0
        self._flows = 0
        self._protocol = ""
        self._began = self._named_at = time.monotonic()
        self._form = ""
        self._action = ""
        self._pattern = ""
        self._reason = ""
        self._error = ""
        self._tunnel: FlowRecording | None = None
        self._why = ""
        # a refusal that each request is told of, if there is one
        self._explained: FlowFacts | None = None

    @property
    def target(self) -> tuple[str, int]:
        """Host and port that the client named, or what stands for none."""
        return ("", 0) if self._client is None else self._client.meta.target or ("", 0)

    def event(self, kind: FlowEventKind, attributes: Attributes) -> None:
        """Emit an event of the connection itself, if it is wanted."""
        if self._client is not None:
            self._proxy.connection_event(self, kind, attributes, self._protocol)

    def destination_of(self, recording: FlowRecording) -> tuple[str, int]:
        """Return host and port that a flow asked for."""
        if recording.route is None:
            return self.target
        return destination(recording.route.authority, recording.route.scheme) or (recording.route.authority, 0)

    def speaks(self, protocol: str) -> None:
        """The first protocol that is spoken is the connection's."""
        self._protocol = self._protocol or protocol

    # --- its destination

    def named(self, host: str, port: int, form: str) -> None:
        """The client has named a destination: in a CONNECT, in `absolute` form, or in `origin` form by its Host."""
        self._form = form
        self._named_at = time.monotonic()
        self.event(Kind.CONNECT_RECEIVED, {"form": form, "host": host, "port": port})

    def decided(self, action: str, reason: str, pattern: object, by: str) -> None:
        """It is decided what becomes of that destination: `intercept`, `tunnel` or `block`."""
        self._action = action
        self._pattern = "" if pattern is None else str(pattern)
        self.event(Kind.CONNECT_DECISION, {"action": action, "by": by, "pattern": self._pattern, "reason": reason})

    def refused(self, status: int, cause: str, *, is_explained: bool = False) -> None:
        """The connection is refused; `is_explained`: each request in it is answered so."""
        if not self._form and self._flows == 0 and not is_explained:
            self._reason = "connect_parse_failed"
            self.event(Kind.CONNECT_PARSE_FAILED, {"error": cause, "status": status})
        outcome = "blocked" if self._action == "block" else _REFUSALS.get(status, "refused")
        if not self._reason:
            self._reason = "blocked" if outcome == "blocked" else "upstream_connect_failed" if status >= 500 else "mitm_http_error"
        self._error = cause
        facts = self._facts_of_refusal(status, cause, outcome)
        if facts is not None and is_explained:
            self._explained = facts
        elif facts is not None:
            self._proxy.refused(self, facts)

    def _facts_of_refusal(self, status: int, cause: str, outcome: str) -> FlowFacts | None:
        if self._client is None:
            return None
        facts = FlowFacts()
        facts.flow_id = self._proxy.next_flow_id()
        facts.kind = KINDS.index(FlowKind.REFUSED)
        facts.meta = self._client.meta
        facts.status = status
        facts.cause = cause
        facts.outcome = FLOW_OUTCOMES.index(outcome)
        facts.answered_by = ANSWERED_BY.index("proxy" if status else "")
        facts.pattern = self._pattern
        facts.method = b"CONNECT" if self._form == "connect" else b""
        facts.protocol = _TUNNEL
        return facts

    # --- TLS with the client

    def tls_started(self, sni: str) -> None:
        """Our handshake with the client begins."""
        self.event(Kind.TLS_HANDSHAKE_STARTED, {"side": "client", "sni": sni})

    def tls_succeeded(self, info: TlsInfo) -> None:
        """It is done."""
        attributes: Attributes = {
            "alpn": info.negotiated_proto or "",
            "cipher": info.cipher or "",
            "resumed": int(bool(info.resumed)),
            "side": "client",
            "sni": info.sni or "",
            "version": info.version or "",
        }
        self.event(Kind.TLS_HANDSHAKE_SUCCEEDED, attributes)

    def tls_failed(self, reason: str, detail: str, cause: str) -> None:
        """It has failed, as a class of failures and in words."""
        self.event(Kind.TLS_HANDSHAKE_FAILED, {"class": reason, "detail": detail, "side": "client"})
        self._reason = "tls_handshake_failed"
        self._error = cause
        facts = self._facts_of_refusal(0, cause, "cut_by_client")
        if facts is not None:
            self._proxy.refused(self, facts)

    # --- a tunnel

    def tunnel(self, why: str, endpoint: object) -> FlowRecording:
        """A tunnel over `endpoint` begins; the data plane is to be given what is returned."""
        recording = self._proxy.recorder.recording(self._proxy.next_flow_id(), self._named_at)
        recording.connection = self
        recording.protocol = _TUNNEL
        recording.describe = self._describe_tunnel
        recording.note_endpoint(endpoint)
        self._tunnel = recording
        self._why = why
        self.speaks("tunnel")
        return recording

    def _describe_tunnel(self, facts: FlowFacts) -> None:
        assert self._client is not None
        facts.kind = KINDS.index(FlowKind.TUNNEL)
        facts.meta = self._client.meta
        facts.cause = self._why
        facts.outcome = FLOW_OUTCOMES.index("tunnelled") if facts.is_over else -1
        facts.pattern = self._pattern
        facts.method = b"CONNECT"
        facts.status = 200
        facts.answered_by = ANSWERED_BY.index("proxy")

    def tunnel_ended(self) -> None:
        """That tunnel is over."""
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.finish()

    # --- its end

    def flow_ended(self, facts: FlowFacts) -> None:
        """A flow of it is over."""
        self._flows += 1
        if facts.kind < KINDS.index(FlowKind.TUNNEL):
            # which tells it better
            self._explained = None

    def closed(self) -> None:
        """The connection is over."""
        if self._client is None:
            return
        self.tunnel_ended()
        if self._explained is not None:
            self._proxy.refused(self, self._explained)
        came, went = self._client.octets
        if not self._reason:
            self._reason = "relay_eof" if self._protocol in ("", "tunnel") else "mitm_http_completed"
        self.event(
            Kind.STREAM_CLOSED,
            {
                "bytes_from_client": came,
                "bytes_to_client": went,
                "error": self._error,
                "reason": self._reason,
                "took_us": round((time.monotonic() - self._began) * 1_000_000),
            },
        )
        self.event(Kind.CONNECTION_CLOSED, {"flows": self._flows})
        # it refers to us
        self._client = None
        self._proxy.forget(self)


def _in_words(kind: FlowEventKind, attributes: dict[str, Any]) -> Attributes:
    """Return the attributes with names in place of numbers of the data plane."""
    if kind is Kind.REQUEST_DECISION:
        return {"decision": Verdict(attributes["decision"]).name.lower(), "reason": cause_text(attributes["reason"])}
    if kind is Kind.WEBSOCKET_CLOSED:
        return {**attributes, "by": CLOSED_BY[attributes["by"]]}
    return attributes


def _end_of_flow(facts: FlowFacts) -> Attributes:
    outcome = FLOW_OUTCOMES[facts.outcome] if facts.outcome >= 0 else ""
    error = facts.cause if isinstance(facts.cause, str) else cause_text(facts.cause)
    by = _ENDED_BY.get(outcome, "upstream")
    if facts.kind == KINDS.index(FlowKind.WEBSOCKET) and outcome == "tunnelled":
        reason = "websocket_error" if error else "websocket_completed"
        by = "proxy" if facts.websocket_end is None else CLOSED_BY[facts.websocket_end[2]]
    elif outcome == "tunnelled":
        reason = "relay_error" if error and facts.kind != KINDS.index(FlowKind.TUNNEL) else "relay_eof"
    elif outcome == "upstream_error" and facts.timings[1] < 0:
        reason = "upstream_connect_failed"
    else:
        reason = _REASONS.get(outcome, "mitm_http_error")
    return {
        "by": by,
        "complete": int(outcome in ("answered", "responded", "tunnelled")),
        "error": error,
        "outcome": outcome,
        "reason": reason,
        "request_bytes": facts.request_size,
        "response_bytes": facts.response_size,
        "took_us": round(facts.took * 1_000_000),
    }


def _copy(facts: FlowFacts, made: FlowFacts) -> None:
    made.kind, made.meta, made.status, made.cause = facts.kind, facts.meta, facts.status, facts.cause
    made.outcome, made.answered_by, made.pattern = facts.outcome, facts.answered_by, facts.pattern
    made.method, made.protocol = facts.method, facts.protocol
