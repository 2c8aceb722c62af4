from typing import Any, final

from soth_mitm._dataplane.http.hooks import Hooks
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue

@final
class Counters:
    flows: int
    active_flows: int
    requests_allowed: int
    requests_blocked: int
    blocks_ignored: int
    requests_refused: int
    names_refused: int
    responses_relayed: int
    responses_cut: int
    upstream_errors: int
    upstream_timeouts: int
    retries: int
    pool_hits: int
    pool_misses: int
    pool_waits: int
    pool_stale: int
    pool_pins: int
    upgrades: int
    tunnels: int
    dropped_chunks: int
    shortened_copies: int
    stream_chunks: int
    framing_errors: int
    bytes_from_clients: int
    bytes_to_clients: int
    bytes_from_upstreams: int
    bytes_to_upstreams: int
    last_flow_id: int

@final
class Plane:
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
    observer: Any
    meant_to_block: Any
    on_ignored_block: Any
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
    claim: DeadlineQueue
    tunnel_idle: DeadlineQueue
    tunnel_quiet: DeadlineQueue
    linger: DeadlineQueue
    settling: DeadlineQueue
    pace: DeadlineQueue
    def __new__(cls, arena: Arena, hooks: Hooks, counters: Counters, **settings: Any) -> Plane: ...
    def __init__(self, arena: Arena, hooks: Hooks, counters: Counters, **settings: Any) -> None: ...
    @property
    def arena(self) -> Arena: ...
    @property
    def hooks(self) -> Hooks: ...
    @property
    def counters(self) -> Counters: ...
