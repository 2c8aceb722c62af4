"""`FlowEvent`: one step of a connection or of a flow, as an event sink is told of it.

A flow is one request with its response (an HTTP/2 stream is one flow), or one tunnel. A connection is what was accepted. `flow_id` 0 means
the connection itself. Kinds, their order and their attributes are described in docs/events.md.
"""

from enum import StrEnum

import msgspec


class FlowEventKind(StrEnum):
    """What one `FlowEvent` is about. A reader skips kinds that it does not know."""

    CONNECTION_OPENED = "connection_opened"
    CONNECT_RECEIVED = "connect_received"
    CONNECT_PARSE_FAILED = "connect_parse_failed"
    CONNECT_DECISION = "connect_decision"
    TLS_HANDSHAKE_STARTED = "tls_handshake_started"
    TLS_HANDSHAKE_SUCCEEDED = "tls_handshake_succeeded"
    TLS_HANDSHAKE_FAILED = "tls_handshake_failed"
    TLS_LEARNING_AUDIT = "tls_learning_audit"
    REQUEST_HEADERS = "request_headers"
    REQUEST_DECISION = "request_decision"
    REQUEST_BODY_CHUNK = "request_body_chunk"
    RESPONSE_HEADERS = "response_headers"
    RESPONSE_BODY_CHUNK = "response_body_chunk"
    GRPC_REQUEST_HEADERS = "grpc_request_headers"
    GRPC_RESPONSE_HEADERS = "grpc_response_headers"
    GRPC_RESPONSE_TRAILERS = "grpc_response_trailers"
    SSE_EVENT = "sse_event"
    WEBSOCKET_OPENED = "websocket_opened"
    WEBSOCKET_FRAME = "websocket_frame"
    WEBSOCKET_TURN_STARTED = "websocket_turn_started"
    WEBSOCKET_TURN_COMPLETED = "websocket_turn_completed"
    WEBSOCKET_CLOSED = "websocket_closed"
    HTTP3_PASSTHROUGH = "http3_passthrough"
    MODEL_CALL = "model_call"
    STREAM_CLOSED = "stream_closed"
    CONNECTION_CLOSED = "connection_closed"


class FlowEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One step. Texts are as the peers chose them: escape them where they are shown (`soth_mitm.escaping`)."""

    sequence_id: int
    """Of this event among all of its proxy, from 1. A gap is an event that was dropped, or of a kind that the sink did not ask for."""
    flow_id: int
    """Unique in the process; 0: it is about the connection."""
    flow_sequence_id: int
    """Of this event among those of its flow or, with `flow_id` 0, of its connection; from 1."""
    kind: FlowEventKind
    protocol: str
    """`tunnel`, `http1`, `http2`, `sse`, `streamable_http`, `grpc` or `websocket`, as far as it is known; `""` before."""
    stream_key: str
    """Groups events: `h2:STREAM`, `ws_turn:N`, `sequence:N`, `grpc:PATH:N`, else `flow:FLOW:SEQUENCE`."""
    connection_id: str
    client_addr: str
    """`HOST:PORT` of the client, or `unix:PATH`."""
    server_host: str
    """Of the target that the client named, `""` before it did."""
    server_port: int
    attributes: dict[str, str | int]
    """What its kind has, by name. Never a body. A path is as it came: a sink masks what it keeps (`soth_mitm.observe.masking`)."""
    unix_us: int
    """When it happened: microseconds since 1970."""
    worker: int = 0
