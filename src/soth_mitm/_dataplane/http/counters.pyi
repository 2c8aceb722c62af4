from typing import final

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
    trailers_dropped: int
    bytes_from_clients: int
    bytes_to_clients: int
    bytes_from_upstreams: int
    bytes_to_upstreams: int
    http2_upstream_connections: int
    http2_goaways_received: int
    http2_dead_connections: int
    http2_retries: int
    last_flow_id: int
