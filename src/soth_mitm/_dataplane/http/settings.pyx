"""A configuration snapshot as the data plane uses it."""

cimport cython

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http.hooks cimport Hooks
from soth_mitm._dataplane.http2.limits cimport Http2Limits
from soth_mitm._dataplane.http2.session cimport HeadMemory
from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.memory.deadline cimport DeadlineQueue


@cython.final
cdef class Settings:
    """One configuration snapshot on one loop. Every limit and deadline is required: the data plane reads them unchecked."""

    def __cinit__(
        self,
        Arena arena not None,
        Hooks hooks not None,
        Counters counters not None,
        *,
        Py_ssize_t head_limit,
        int most_fields,
        Py_ssize_t body_limit,
        Py_ssize_t queue_limit,
        bint enforce,
        bint buffer_requests,
        bint reject_overflow,
        bint refuse_incomplete,
        bint retry,
        decision_type,
        allow,
        response_decision_type,
        response_pass,
        chunk_decision_type,
        chunk_pass,
        observer,
        meant_to_block,
        on_ignored_decision,
        on_redirect,
        dict stream_types,
        decode_apart,
        bint strip_alt_svc,
        Py_ssize_t read_ahead,
        double unsafe_idle,
        DeadlineQueue half_closed not None,
        DeadlineQueue client_head not None,
        DeadlineQueue client_idle not None,
        DeadlineQueue body_idle not None,
        DeadlineQueue body_buffer not None,
        DeadlineQueue response_head not None,
        DeadlineQueue own_body_close not None,
        DeadlineQueue claim not None,
        DeadlineQueue tunnel_idle not None,
        DeadlineQueue tunnel_quiet not None,
        DeadlineQueue linger not None,
        DeadlineQueue settling not None,
        DeadlineQueue pace not None,
        bint websocket_closes,
        bint websocket_recompresses,
        DeadlineQueue websocket_close not None,
        DeadlineQueue websocket_idle not None,
        websockets,
        HeadMemory http2_memory not None,
        Http2Limits client_http2 not None,
        Http2Limits upstream_http2 not None,
        bint http2_strict_overflow,
        DeadlineQueue http2_settings not None,
        DeadlineQueue http2_ping not None,
        DeadlineQueue http2_drain not None,
        DeadlineQueue http2_stall not None,
        DeadlineQueue http2_keepalive,
        DeadlineQueue http2_response_head not None,
        DeadlineQueue http2_body_idle not None,
    ):
        self.arena = arena
        self.hooks = hooks
        self.counters = counters
        self.head_limit = head_limit
        self.most_fields = most_fields
        self.body_limit = body_limit
        self.queue_limit = queue_limit
        self.enforce = enforce
        self.buffer_requests = buffer_requests
        self.reject_overflow = reject_overflow
        self.refuse_incomplete = refuse_incomplete
        self.retry = retry
        self.decision_type = decision_type
        self.allow = allow
        self.response_decision_type = response_decision_type
        self.response_pass = response_pass
        self.chunk_decision_type = chunk_decision_type
        self.chunk_pass = chunk_pass
        self.observer = observer
        self.meant_to_block = meant_to_block
        self.on_ignored_decision = on_ignored_decision
        self.on_redirect = on_redirect
        self.stream_types = stream_types
        self.decode_apart = decode_apart
        self.strip_alt_svc = strip_alt_svc
        self.read_ahead = read_ahead
        self.unsafe_idle = unsafe_idle
        self.half_closed = half_closed
        self.client_head = client_head
        self.client_idle = client_idle
        self.body_idle = body_idle
        self.body_buffer = body_buffer
        self.response_head = response_head
        self.own_body_close = own_body_close
        self.claim = claim
        self.tunnel_idle = tunnel_idle
        self.tunnel_quiet = tunnel_quiet
        self.linger = linger
        self.settling = settling
        self.pace = pace
        self.websocket_closes = websocket_closes
        self.websocket_recompresses = websocket_recompresses
        self.websocket_close = websocket_close
        self.websocket_idle = websocket_idle
        if websockets is None:
            raise TypeError("'websockets' must be an OpenWebSockets, not None")
        self.websockets = websockets
        self.http2_memory = http2_memory
        self.client_http2 = client_http2
        self.upstream_http2 = upstream_http2
        self.http2_strict_overflow = http2_strict_overflow
        self.http2_settings = http2_settings
        self.http2_ping = http2_ping
        self.http2_drain = http2_drain
        self.http2_stall = http2_stall
        self.http2_keepalive = http2_keepalive
        self.http2_response_head = http2_response_head
        self.http2_body_idle = http2_body_idle

    cdef DeadlineQueue last_wait(self):
        return self.tunnel_quiet if self.draining else self.linger
