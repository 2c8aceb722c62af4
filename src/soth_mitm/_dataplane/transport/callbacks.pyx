"""The interface that an endpoint calls back."""

from soth_mitm._dataplane.memory.waiter cimport Waiter


# not final: everything that an endpoint calls back derives from it
cdef class EndpointCallbacks(Waiter):
    """Base of everything that an endpoint calls back."""

    cdef int on_data(self, object endpoint) except -1:
        return 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        return 0

    cdef int on_fin(self, object endpoint) except -1:
        return 0

    cdef int on_closed(self, object endpoint, object error) except -1:
        return 0

    cdef int on_writable(self, object endpoint, bint now) except -1:
        return 0

    cdef int on_flushed(self, object endpoint) except -1:
        return 0

    cdef int on_tls_done(self, object endpoint, object error) except -1:
        return 0
