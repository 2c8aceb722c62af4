# A configuration snapshot in the form in which the data plane uses it.

from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.memory.deadline cimport DeadlineQueue
from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http.hooks cimport Hooks
from soth_mitm._dataplane.http2.limits cimport Http2Limits
from soth_mitm._dataplane.http2.session cimport HeadMemory


cdef class Settings:
    cdef readonly Arena arena
    cdef readonly Hooks hooks
    cdef readonly Counters counters

    # sizes in bytes
    cdef public Py_ssize_t head_limit          # max_http_head_bytes
    cdef public int most_fields                # max_header_fields: field lines of a head or trailer section
    cdef public Py_ssize_t body_limit          # body.max_size_bytes: what is collected or copied of one body
    cdef public Py_ssize_t queue_limit         # flow_runtime.dispatch_queue_capacity: chunks of a flow, flows of a connection

    # decisions
    cdef public bint enforce                   # intercept_mode
    cdef public bint buffer_requests           # body.buffer_request_bodies
    cdef public bint reject_overflow           # body.overflow is reject
    cdef public bint refuse_incomplete         # body.incomplete is refuse
    cdef public bint retry                     # upstream.retry_on_failure
    cdef public object decision_type           # HandlerDecision
    cdef public object allow                   # HandlerDecision.ALLOW
    cdef public object response_decision_type  # ResponseDecision
    cdef public object response_pass           # ResponseDecision.PASS
    cdef public object chunk_decision_type     # ChunkDecision
    cdef public object chunk_pass              # ChunkDecision.PASS
    cdef public object observer                # observer.flow(...), told of each flow; None: there is none
    cdef public object recorder                # Recorder (exchange/flow_recording), told of each flow for event sinks; None: there are none
    cdef public object meant_to_block          # meant_to_block(exception): on_request failed in making a block
    cdef public object on_ignored_decision        # called with the request and what monitor mode does not apply
    # on_redirect(route, where, whether the client is multiplexed) -> Route that a request takes instead; its pool is None: it may not
    cdef public object on_redirect
    # Of the generation, which has its tasks. terms(origin, authority) -> CredentialTerms; values(numbers) -> a dict by number, or None:
    # not all are here; resolve(numbers, request, done), which has done(the dict, or None, and why) called later; count(numbers).
    # None: there are no credentials
    cdef public object credentials
    cdef public dict stream_types              # streams.types: media types in lower case, each a Stream; None: there are none
    # decode_apart(arguments of decode_body, done): calls done(its result, or None) from the loop, later. None: all is decoded on the loop
    cdef public object decode_apart
    cdef public bint strip_alt_svc             # interception.strip_alt_svc
    cdef public bint draining                  # answers carry Connection: close

    # deadlines
    cdef public Py_ssize_t read_ahead          # connection_pool.read_ahead_bytes
    cdef public double unsafe_idle             # connection_pool.unsafe_reuse_idle_ms, in seconds
    cdef public DeadlineQueue half_closed      # timeouts.half_closed_client_ms: a client that has ended its direction
    cdef public DeadlineQueue client_head      # timeouts.client_head_ms: a head that has begun
    cdef public DeadlineQueue client_idle      # timeouts.client_idle_ms: between requests
    cdef public DeadlineQueue body_idle        # timeouts.body_idle_ms: a body that stopped moving, either way
    cdef public DeadlineQueue body_buffer      # body.buffer_timeout_ms: collecting before the decision
    cdef public DeadlineQueue response_head    # upstream.timeout_ms
    cdef public DeadlineQueue own_body_close   # handler.response_timeout_ms: an iterable of the handler that is to close
    cdef public DeadlineQueue claim            # waiting for a connection of the pool
    cdef public DeadlineQueue tunnel_idle      # timeouts.tunnel_idle_ms
    cdef public DeadlineQueue tunnel_quiet     # the same in a drain: a peer that says nothing holds up a shutdown for no longer
    cdef public DeadlineQueue linger           # reading on after our last byte, so that it arrives
    cdef public DeadlineQueue settling         # before looking again whether the system has sent our last bytes
    cdef public DeadlineQueue pace             # flow_runtime.dispatch_queue_send_timeout_ms: how long a full queue paces its flow

    # WebSockets whose messages are read
    cdef public bint websocket_recompresses    # websocket.recompress
    cdef public bint websocket_closes          # websocket.on_violation is close
    cdef public DeadlineQueue websocket_idle   # websocket.idle_timeout_ms, or tunnel_idle
    cdef public object websockets              # OpenWebSockets
    cdef public DeadlineQueue websocket_close  # websocket.close_timeout_ms

    # HTTP/2
    cdef public HeadMemory http2_memory        # of all sessions of the loop
    cdef public Http2Limits client_http2       # what a client may cost
    cdef public Http2Limits upstream_http2     # what an upstream may cost
    cdef public bint http2_strict_overflow     # upstream.h2_response_overflow_mode is strict_fail
    cdef public DeadlineQueue http2_settings   # http2.settings_timeout_ms
    cdef public DeadlineQueue http2_ping       # http2.ping_timeout_ms
    cdef public DeadlineQueue http2_drain      # for the answer to the PING that goes with a GOAWAY
    cdef public DeadlineQueue http2_stall      # http2.stall_timeout_ms: how often streams that do not move are looked for
    cdef public DeadlineQueue http2_keepalive  # http2.keepalive_ms; None: no PING without a reason
    cdef public DeadlineQueue http2_response_head  # upstream.h2_header_stage_timeout_ms
    cdef public DeadlineQueue http2_body_idle  # upstream.h2_body_idle_timeout_ms

    # How long a peer is waited for that has nothing more to say to us: `linger`, and less while the proxy shuts down
    cdef DeadlineQueue last_wait(self)
