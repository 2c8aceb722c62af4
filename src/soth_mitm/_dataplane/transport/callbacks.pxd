# What an endpoint calls back. Each method does nothing unless it is overridden.

from soth_mitm._dataplane.memory.waiter cimport Waiter


# Why reading is paused. It goes on when no reason is left.
cdef enum PauseReason:
    PAUSE_PEER_SLOW = 1        # the other side does not take what comes
    PAUSE_HANDLER = 2          # the handler's queue is full
    PAUSE_BUDGET = 4           # memory is short
    PAUSE_TURN = 8             # more lies here than one turn of the loop may move
    PAUSE_BUFFER_FULL = 16     # what lies here unread is all that may lie here
    PAUSE_SETUP = 32           # the connection is between two owners
    PAUSE_DECISION = 64        # what came waits for a decision of the handler


cdef class EndpointCallbacks(Waiter):
    # new plaintext lies in the endpoint's read buffer
    cdef int on_data(self, object endpoint) except -1
    # the peer will send no more; `clean` is false when TLS ended without close_notify
    cdef int on_eof(self, object endpoint, bint clean) except -1
    # the peer's FIN came, after its close_notify
    cdef int on_fin(self, object endpoint) except -1
    # the connection is gone; comes exactly once, and last. `error` is None after an orderly close
    cdef int on_closed(self, object endpoint, object error) except -1
    # the transport's buffer is full (false) or has drained (true)
    cdef int on_writable(self, object endpoint, bint now) except -1
    # what was gathered of a turn of the loop was given to the transport
    cdef int on_flushed(self, object endpoint) except -1
    # the TLS handshake is complete (error None) or failed
    cdef int on_tls_done(self, object endpoint, object error) except -1
