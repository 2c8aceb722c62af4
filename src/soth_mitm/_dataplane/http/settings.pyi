from typing import Any, final

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import Hooks
from soth_mitm._dataplane.http2.limits import Http2Limits
from soth_mitm._dataplane.http2.session import HeadMemory
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue

@final
class Settings:
    head_limit: int
    most_fields: int
    body_limit: int
    queue_limit: int
    enforce: bool
    buffer_requests: bool
    reject_overflow: bool
    refuse_incomplete: bool
    retry: bool
    decision_type: Any
    allow: Any
    response_decision_type: Any
    response_pass: Any
    chunk_decision_type: Any
    chunk_pass: Any
    observer: Any
    recorder: Any
    meant_to_block: Any
    on_ignored_decision: Any
    on_redirect: Any
    credentials: Any
    stream_types: dict[bytes, int] | None
    decode_apart: Any
    strip_alt_svc: bool
    draining: bool
    read_ahead: int
    unsafe_idle: float
    half_closed: DeadlineQueue
    client_head: DeadlineQueue
    client_idle: DeadlineQueue
    body_idle: DeadlineQueue
    body_buffer: DeadlineQueue
    response_head: DeadlineQueue
    own_body_close: DeadlineQueue
    claim: DeadlineQueue
    tunnel_idle: DeadlineQueue
    tunnel_quiet: DeadlineQueue
    linger: DeadlineQueue
    settling: DeadlineQueue
    pace: DeadlineQueue
    websocket_closes: bool
    websocket_recompresses: bool
    websocket_close: DeadlineQueue
    websocket_idle: DeadlineQueue
    websockets: Any
    http2_memory: HeadMemory
    client_http2: Http2Limits
    upstream_http2: Http2Limits
    http2_strict_overflow: bool
    http2_settings: DeadlineQueue
    http2_ping: DeadlineQueue
    http2_drain: DeadlineQueue
    http2_stall: DeadlineQueue
    http2_keepalive: DeadlineQueue | None
    http2_response_head: DeadlineQueue
    http2_body_idle: DeadlineQueue
    def __new__(
        cls,
        arena: Arena,
        hooks: Hooks,
        counters: Counters,
        *,
        head_limit: int,
        most_fields: int,
        body_limit: int,
        queue_limit: int,
        enforce: bool,
        buffer_requests: bool,
        reject_overflow: bool,
        refuse_incomplete: bool,
        retry: bool,
        decision_type: Any,
        allow: Any,
        response_decision_type: Any,
        response_pass: Any,
        chunk_decision_type: Any,
        chunk_pass: Any,
        observer: Any,
        meant_to_block: Any,
        on_ignored_decision: Any,
        on_redirect: Any,
        stream_types: dict[bytes, int] | None,
        decode_apart: Any,
        strip_alt_svc: bool,
        read_ahead: int,
        unsafe_idle: float,
        half_closed: DeadlineQueue,
        client_head: DeadlineQueue,
        client_idle: DeadlineQueue,
        body_idle: DeadlineQueue,
        body_buffer: DeadlineQueue,
        response_head: DeadlineQueue,
        own_body_close: DeadlineQueue,
        claim: DeadlineQueue,
        tunnel_idle: DeadlineQueue,
        tunnel_quiet: DeadlineQueue,
        linger: DeadlineQueue,
        settling: DeadlineQueue,
        pace: DeadlineQueue,
        websocket_closes: bool,
        websocket_recompresses: bool,
        websocket_close: DeadlineQueue,
        websocket_idle: DeadlineQueue,
        websockets: Any,
        http2_memory: HeadMemory,
        client_http2: Http2Limits,
        upstream_http2: Http2Limits,
        http2_strict_overflow: bool,
        http2_settings: DeadlineQueue,
        http2_ping: DeadlineQueue,
        http2_drain: DeadlineQueue,
        http2_stall: DeadlineQueue,
        http2_keepalive: DeadlineQueue | None,
        http2_response_head: DeadlineQueue,
        http2_body_idle: DeadlineQueue,
    ) -> Settings: ...
    @property
    def arena(self) -> Arena: ...
    @property
    def hooks(self) -> Hooks: ...
    @property
    def counters(self) -> Counters: ...
