# Whoever an endpoint, a deadline, a pool or a hook calls back. One interface, because one object (an exchange, a tunnel, an intake) is
# usually called back by all of them; each method does nothing unless it is overridden.

cdef class Party:
    # an endpoint has new plaintext in its inbox
    cdef int received(self, object endpoint) except -1
    # its peer will send no more; `clean` is false when TLS was cut without close_notify
    cdef int ended(self, object endpoint, bint clean) except -1
    # its FIN came, after its close_notify
    cdef int left(self, object endpoint) except -1
    # its connection is gone; comes exactly once, and last. `error` is None after an orderly close
    cdef int lost(self, object endpoint, object error) except -1
    # its transport's buffer is full (false) or has drained (true)
    cdef int writable(self, object endpoint, bint now) except -1
    # its TLS handshake is complete (error None) or failed
    cdef int secured(self, object endpoint, object error) except -1

    # a deadline passed
    cdef int late(self, int stage) except -1

    # a hook that had suspended has returned, raised, or was late (then `error` is a TimeoutError)
    cdef int resolved(self, object result, object error) except -1

    # a pool has a connection for us, or has given up
    cdef int granted(self, object upstream) except -1
    cdef int refused(self, object error) except -1

    # a flow's queue of hook calls is full, so that its traffic should wait (true), or has room again or has waited long enough (false)
    cdef int paced(self, bint hold) except -1
    # the budget has room again, or it is our turn to go on without
    cdef int afforded(self) except -1
    # a flow has ended and its last hook has returned
    cdef int settled(self, object flow) except -1

    # a hook failed and `handler.recover_from_panics` is off, or it was cancelled: the flow is to be cut
    cdef int broken(self, object error) except -1
