"""What the parts of an exchange tell it."""

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.stream cimport StreamCallbacks


# not final: an exchange is one
cdef class ExchangeCallbacks(StreamCallbacks):
    """Base of what has a hook queue and a share of the budget."""

    cdef int on_pressure(self, int reason, bint now) except -1:
        return 0

    cdef int on_copies_late(self) except -1:
        return 0

    cdef int on_late_decision(self, object decision) except -1:
        return 0

    cdef int on_own_body(self, object body) except -1:
        return 0

    cdef int on_own_body_closed(self, object body) except -1:
        return 0

    cdef int on_messages(self, object tap) except -1:
        return 0

    cdef bint on_chunk_found(self, StreamChunk chunk) except -1:
        return True

    cdef int on_chunk_left(self, object stage, StreamChunk chunk) except -1:
        return 0

    cdef int on_stage_waits(self, object stage) except -1:
        return 0

    cdef int on_stage_ready(self, object stage) except -1:
        return 0

    cdef int describe_chunk(self, object chunk, str direction, int64_t sequence) except -1:
        return 0

    cdef int on_call_begun(self) except -1:
        return 0

    cdef int on_call_returned(self) except -1:
        return 0

    cdef int describe_flow(self, object facts) except -1:
        return 0

    cdef int on_queue_idle(self) except -1:
        return 0


# not final: a tunnel is one
cdef class TunnelCallbacks(StreamCallbacks):
    """Base of what has directions."""

    cdef int on_tap(self, object tap) except -1:
        return 0
