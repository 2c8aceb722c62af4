"""The one interface that endpoints, deadlines, pools and hooks call back."""


# not final: everything that is called back derives from it
cdef class Party:
    """Base of whoever is called back."""

    cdef int received(self, object endpoint) except -1:
        return 0

    cdef int ended(self, object endpoint, bint clean) except -1:
        return 0

    cdef int left(self, object endpoint) except -1:
        return 0

    cdef int lost(self, object endpoint, object error) except -1:
        return 0

    cdef int writable(self, object endpoint, bint now) except -1:
        return 0

    cdef int secured(self, object endpoint, object error) except -1:
        return 0

    cdef int late(self, int stage) except -1:
        return 0

    cdef int resolved(self, object result, object error) except -1:
        return 0

    cdef int granted(self, object upstream) except -1:
        return 0

    cdef int refused(self, object error) except -1:
        return 0

    cdef int paced(self, bint hold) except -1:
        return 0

    cdef int afforded(self) except -1:
        return 0

    cdef int settled(self, object flow) except -1:
        return 0

    cdef int broken(self, object error) except -1:
        return 0
