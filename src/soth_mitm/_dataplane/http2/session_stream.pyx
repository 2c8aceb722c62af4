"""Streams of a session, and the ring of those that wait for their turn to write."""

cimport cython


@cython.final
@cython.freelist(128)
cdef class SessionStream:
    """One stream of a session."""

    def __cinit__(self):
        self.content_length = -1
        self.waits_since = -1

    cdef Py_ssize_t kept_size(self) noexcept:
        return self.kept.size() if self.kept is not None else 0


@cython.final
cdef class WriteRing:
    """The streams that wait for their turn, the one that has waited longest first."""

    cdef void append(self, SessionStream stream) noexcept:
        stream.wait = WAIT_TURN
        stream.before = self.last
        if self.last is None:
            self.first = stream
        else:
            self.last.after = stream
        self.last = stream

    cdef void remove(self, SessionStream stream) noexcept:
        if stream.wait != WAIT_TURN:
            return
        if stream.before is None:
            self.first = stream.after
        else:
            stream.before.after = stream.after
        if stream.after is None:
            self.last = stream.before
        else:
            stream.after.before = stream.before
        stream.before = stream.after = None
        stream.wait = WAIT_NOTHING

    cdef SessionStream pop(self):
        cdef SessionStream stream = self.first
        if stream is not None:
            self.remove(stream)
        return stream
