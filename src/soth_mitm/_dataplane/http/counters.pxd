# What the data plane counts.

from libc.stdint cimport int64_t, uint32_t


cdef enum:
    CODES_END = 14             # of the error codes of HTTP/2; those beyond it are counted there, together
    HTTP2_LIMITS_END = 16      # more than http2/limits has
    WEBSOCKET_VIOLATIONS_END = 32      # more than websocket/violations has
    WEBSOCKET_ENDS = 4         # by the client, the upstream, the proxy, nobody
    MOST_EDGES = 16            # of a histogram


# How a flow ended; `FLOW_ENDS` in soth_mitm.metrics has the same order
cdef enum FlowEnd:
    END_ANSWERED = 0       # the client has the whole of what the upstream answered, or of our answer to its last hop
    END_BLOCKED            # by the policy, the handler, or the failure policy in its place
    END_RESPONDED          # the handler answered
    END_ABORTED            # the handler ended it without an answer
    END_REFUSED
    END_UPSTREAM_ERROR     # answered in the place of an upstream
    END_UPSTREAM_TIMEOUT   # a deadline of the upstream passed
    END_CUT_BY_CLIENT
    END_CUT_BY_UPSTREAM    # within its response
    END_CUT_BY_PROXY
    END_TUNNELLED          # it switched to another protocol
    FLOW_ENDS


# What it was about; `FLOW_PROTOCOLS` there
cdef enum FlowProtocol:
    FLOW_HTTP1 = 0         # of the client, as the next
    FLOW_HTTP2
    FLOW_SSE
    FLOW_STREAMABLE_HTTP   # lines of JSON, JSON sequences, event streams of AWS
    FLOW_GRPC
    FLOW_WEBSOCKET
    FLOW_TUNNEL            # another protocol that it switched to
    FLOW_PROTOCOLS


cdef enum:
    STATUS_CLASSES = 7     # none, 1xx to 5xx, others


# How many took at most how long
cdef class Histogram:
    cdef readonly tuple edges          # in seconds, ascending
    cdef readonly double seconds       # the sum
    cdef double limits[MOST_EDGES]
    cdef int length
    cdef int64_t found[MOST_EDGES + 1]     # by the first edge that is not passed; the last: beyond them

    cdef int add(self, double seconds) noexcept


# The flows to one kind of destination that have ended
cdef class FlowCounts:
    cdef readonly str name             # of the pattern
    cdef int64_t ended[FLOW_PROTOCOLS][FLOW_ENDS][STATUS_CLASSES]

    # FlowProtocol, FlowEnd; `status` is what the client was told, 0: nothing
    cdef int count(self, int protocol, int end, int status) noexcept


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
    cdef readonly Histogram request_times      # from the request's head to the end of its flow
    cdef readonly Histogram first_byte_times   # from the request's head to that of the final response
    cdef readonly Histogram filter_times       # how long filters took for a chunk
    cdef readonly FlowCounts unlisted           # flows to destinations that no pattern names
    cdef int64_t resets_received[CODES_END + 1]
    cdef int64_t resets_sent[CODES_END + 1]
    cdef int64_t goaways_sent[CODES_END + 1]           # that no limit caused
    cdef int64_t goaways_of_limits[HTTP2_LIMITS_END]
    cdef int64_t websocket_messages[4]                 # 2 for those to the client, and 1 for binary ones
    cdef int64_t websocket_violations_of[2 * WEBSOCKET_VIOLATIONS_END]     # by the client, and by the upstream
    cdef int64_t websocket_closes[WEBSOCKET_ENDS]
    cdef int64_t pairings[4]                           # 2 for a client of HTTP/2, and 1 for such an upstream


# Where what a code of HTTP/2 counts is in these
cdef inline uint32_t code_place(uint32_t code) noexcept nogil:
    return min(code, <uint32_t>CODES_END)


# A filter has taken that long for one chunk
cdef inline int count_filter_time(Counters counters, double seconds) noexcept:
    return counters.filter_times.add(seconds)
