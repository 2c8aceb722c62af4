"""Stages that content passes through on its way: what they have in common, and the last one, which sends."""

cimport cython

from soth_mitm._dataplane.memory.waiter cimport Waiter


# not final: filters and redactors derive from it
cdef class ContentStage(Waiter):
    """One of them."""

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        raise NotImplementedError("a stage says what it does with content")

    cdef int end(self) except -1:
        return self.next.end()

    cdef Py_ssize_t held(self) noexcept:
        return 0

    cdef bint is_waiting(self) noexcept:
        return False

    cdef int begin_turn(self) except -1:
        return 0

    cdef int close(self) except -1:
        return 0


@cython.final
cdef class SendStage(ContentStage):
    """Sends what it is fed."""

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        self.sink.send_content(data, length)
        return length

    cdef int end(self) except -1:
        self.has_ended = True
        return 0
