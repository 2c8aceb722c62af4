# What the data plane counts.

from libc.stdint cimport int64_t, uint32_t


cdef enum:
    CODES_END = 14             # of the error codes of HTTP/2; those beyond it are counted there, together
    HTTP2_LIMITS_END = 16      # more than http2/limits has
    WEBSOCKET_VIOLATIONS_END = 32      # more than websocket/violations has
    WEBSOCKET_ENDS = 4         # by the client, the upstream, the proxy, nobody
    FILTER_BUCKETS = 6         # up to 0.1 ms, 1 ms, ... 10 s; and those beyond


# Counted by the data plane, read by metrics.py; each is explained there
cdef class Counters:
    cdef public int64_t flows
    cdef public int64_t active_flows
    cdef public int64_t requests_allowed
    cdef public int64_t requests_blocked
    cdef public int64_t blocks_ignored
    cdef public int64_t requests_answered
    cdef public int64_t requests_aborted
    cdef public int64_t decisions_ignored
    cdef public int64_t requests_changed
    cdef public int64_t requests_redirected
    cdef public int64_t changed_signed_messages
    cdef public int64_t own_bodies_cancelled
    cdef public int64_t placeholders_blocked
    cdef public int64_t credentials_unavailable
    cdef public int64_t requests_refused
    cdef public int64_t names_refused
    cdef public int64_t responses_changed
    cdef public int64_t responses_replaced
    cdef public int64_t responses_blocked
    cdef public int64_t held_responses
    cdef public int64_t held_bytes
    cdef public int64_t responses_relayed
    cdef public int64_t responses_cut
    cdef public int64_t upstream_errors
    cdef public int64_t upstream_timeouts
    cdef public int64_t retries
    cdef public int64_t pool_hits
    cdef public int64_t pool_misses
    cdef public int64_t pool_waits
    cdef public int64_t pool_stale
    cdef public int64_t pool_pins
    cdef public int64_t upgrades
    cdef public int64_t websocket_connections
    cdef public int64_t websocket_upgrades
    cdef public int64_t websocket_bad_handshakes
    cdef public int64_t websocket_offers_removed
    cdef public int64_t websocket_decode_errors
    cdef public int64_t websocket_violations
    cdef public int64_t websocket_compressed
    cdef public int64_t websocket_recoded
    cdef public int64_t websocket_injected
    cdef public int64_t tunnels
    cdef public int64_t dropped_chunks
    cdef public int64_t shortened_copies
    cdef public int64_t stream_chunks
    cdef public int64_t framing_errors
    cdef public int64_t chunks_passed
    cdef public int64_t chunks_dropped
    cdef public int64_t chunks_replaced
    cdef public int64_t chunks_ended
    cdef public double filter_seconds
    cdef public int64_t trailers_dropped
    cdef public int64_t interims_dropped
    cdef public int64_t bytes_from_clients
    cdef public int64_t bytes_to_clients
    cdef public int64_t bytes_from_upstreams
    cdef public int64_t bytes_to_upstreams
    cdef public int64_t http2_upstream_connections
    cdef public int64_t http2_goaways_received
    cdef public int64_t http2_dead_connections
    cdef public int64_t http2_retries
    cdef public int64_t http2_client_connections
    cdef public int64_t http2_streams
    cdef public int64_t http2_streams_total
    cdef public int64_t http2_refused_streams
    cdef public int64_t http2_glitches
    cdef public int64_t http2_oversized_heads
    cdef public int64_t http2_misdirected
    cdef public int64_t http2_stalled_streams
    cdef public int64_t http2_window_growths
    cdef public int64_t http2_drains
    cdef public int64_t http2_idle_ends
    cdef public int64_t last_flow_id
    cdef int64_t resets_received[CODES_END + 1]
    cdef int64_t resets_sent[CODES_END + 1]
    cdef int64_t goaways_sent[CODES_END + 1]           # that no limit caused
    cdef int64_t goaways_of_limits[HTTP2_LIMITS_END]
    cdef int64_t filter_buckets[FILTER_BUCKETS + 1]    # chunks by how long their filter took
    cdef int64_t websocket_messages[4]                 # 2 for those to the client, and 1 for binary ones
    cdef int64_t websocket_violations_of[2 * WEBSOCKET_VIOLATIONS_END]     # by the client, and by the upstream
    cdef int64_t websocket_closes[WEBSOCKET_ENDS]
    cdef int64_t pairings[4]                           # 2 for a client of HTTP/2, and 1 for such an upstream


# Where what a code of HTTP/2 counts is in these
cdef inline uint32_t code_place(uint32_t code) noexcept nogil:
    return min(code, <uint32_t>CODES_END)


# A filter has taken that long for one chunk
cdef inline int count_filter_time(Counters counters, double seconds) noexcept:
    cdef int place = 0
    cdef double most = 0.0001
    while place < FILTER_BUCKETS and seconds > most:
        place += 1
        most *= 10
    counters.filter_buckets[place] += 1
    counters.filter_seconds += seconds
    return 0
