# What the data plane counts.

from libc.stdint cimport int64_t


# Counted by the data plane, read by metrics.py; each is explained there
cdef class Counters:
    cdef public int64_t flows
    cdef public int64_t active_flows
    cdef public int64_t requests_allowed
    cdef public int64_t requests_blocked
    cdef public int64_t blocks_ignored
    cdef public int64_t requests_refused
    cdef public int64_t names_refused
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
    cdef public int64_t tunnels
    cdef public int64_t dropped_chunks
    cdef public int64_t shortened_copies
    cdef public int64_t stream_chunks
    cdef public int64_t framing_errors
    cdef public int64_t trailers_dropped
    cdef public int64_t bytes_from_clients
    cdef public int64_t bytes_to_clients
    cdef public int64_t bytes_from_upstreams
    cdef public int64_t bytes_to_upstreams
    cdef public int64_t http2_upstream_connections
    cdef public int64_t http2_goaways_received
    cdef public int64_t http2_dead_connections
    cdef public int64_t http2_retries
    cdef public int64_t last_flow_id
