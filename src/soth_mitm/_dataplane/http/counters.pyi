from typing import final

LONG_EDGES: tuple[float, ...]
FILTER_EDGES: tuple[float, ...]

@final
class Histogram:
    def __new__(cls, edges: tuple[float, ...]) -> Histogram: ...
    @property
    def edges(self) -> tuple[float, ...]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def counts(self) -> list[int]: ...

@final
class FlowCounts:
    def __new__(cls, name: str = ...) -> FlowCounts: ...
    @property
    def name(self) -> str: ...
    @property
    def counts(self) -> list[tuple[int, int, int, int]]: ...

@final
class Counters:
    flows: int
    active_flows: int
    requests_allowed: int
    requests_blocked: int
    blocks_ignored: int
    requests_answered: int
    requests_aborted: int
    decisions_ignored: int
    requests_changed: int
    requests_redirected: int
    changed_signed_messages: int
    own_bodies_cancelled: int
    placeholders_blocked: int
    credentials_unavailable: int
    requests_refused: int
    names_refused: int
    responses_changed: int
    responses_replaced: int
    responses_blocked: int
    held_responses: int
    held_bytes: int
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
    websocket_connections: int
    websocket_upgrades: int
    websocket_bad_handshakes: int
    websocket_offers_removed: int
    websocket_decode_errors: int
    websocket_violations: int
    websocket_compressed: int
    websocket_recoded: int
    websocket_injected: int
    tunnels: int
    dropped_chunks: int
    shortened_copies: int
    stream_chunks: int
    framing_errors: int
    chunks_passed: int
    chunks_dropped: int
    chunks_replaced: int
    chunks_ended: int
    trailers_dropped: int
    interims_dropped: int
    bytes_from_clients: int
    bytes_to_clients: int
    bytes_from_upstreams: int
    bytes_to_upstreams: int
    http2_upstream_connections: int
    http2_goaways_received: int
    http2_dead_connections: int
    http2_retries: int
    http2_client_connections: int
    http2_streams: int
    http2_streams_total: int
    http2_refused_streams: int
    http2_glitches: int
    http2_oversized_heads: int
    http2_misdirected: int
    http2_stalled_streams: int
    http2_window_growths: int
    http2_drains: int
    http2_idle_ends: int
    last_flow_id: int
    @property
    def http2_resets_received(self) -> list[int]:
        """By error code; the last are those without a name."""
    @property
    def http2_resets_sent(self) -> list[int]:
        """The same."""
    @property
    def http2_goaways_sent(self) -> list[int]:
        """The same, of those that no limit caused."""
    @property
    def http2_goaways_of_limits(self) -> list[int]:
        """By limit of http2/limits."""
    @property
    def websocket_messages_by_kind(self) -> list[int]:
        """Text to upstreams, binary to upstreams, text to clients, binary to clients."""
    @property
    def websocket_violations_by_rule(self) -> list[int]:
        """In the order of `VIOLATION_NAMES`: those of clients, then those of upstreams."""
    @property
    def websocket_closes_by_side(self) -> list[int]:
        """By the client, the upstream, the proxy, nobody."""
    @property
    def flows_by_pairing(self) -> list[int]:
        """HTTP/1 with HTTP/1, HTTP/1 with HTTP/2, HTTP/2 with HTTP/1, HTTP/2 with HTTP/2: the client first."""
    @property
    def request_times(self) -> Histogram: ...
    @property
    def first_byte_times(self) -> Histogram: ...
    @property
    def filter_times(self) -> Histogram: ...
    @property
    def unlisted(self) -> FlowCounts: ...
