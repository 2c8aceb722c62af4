"""The base of the framers, which cut a streaming body into frames: SSE events, NDJSON lines, gRPC messages.

A framer watches a copy of the traffic. It never raises because of what it reads, holds a bounded amount of it, and does not care how the
bytes were split over reads. Cython callers use `feed` and `finish`; the two Python methods are the same thing for tests and tools.
"""

from soth_mitm._dataplane.http.messages cimport StreamChunk


cdef tuple only_bytes(tuple payloads, str what):
    """Return payloads that have to be bytes. ValueError if one is an SseEvent."""
    for payload in payloads:
        if type(payload) is not bytes:
            raise ValueError(f"replace: an SseEvent cannot be {what}")
    return payloads


cdef class Framer:
    """Base of all framers; `budget` is the number of payload bytes that one frame may hold.

    Not final: each format is a subclass.
    """

    def __cinit__(self, Py_ssize_t budget, *_rest, **_named):
        if budget < 1:
            raise ValueError(f"budget: a frame must be allowed at least one byte, not {budget}")
        self.budget = self.most = budget

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length, list out) except -1:
        raise NotImplementedError("a framer must say how it frames")

    cdef Py_ssize_t unfinished(self) noexcept:
        return 0

    cdef int hold_no_more(self, Py_ssize_t least) except -1:
        self.most = min(self.most, max(self.unfinished(), least))
        return 0

    cdef int finish(self, list out) except -1:
        raise NotImplementedError("a framer must say what the end of its stream completes")

    cdef StreamChunk peek(self):
        raise NotImplementedError("a framer must say what has come of a frame")

    cdef bytes passed(self, bytes unit):
        return unit

    cdef bint is_odd(self, const char* unit, Py_ssize_t length) noexcept:
        return False

    cdef bytes rewritten(self, bytes unit, tuple payloads):
        raise NotImplementedError("a framer must say how a frame is written")

    def frames(self, bytes data not None):
        """Feed `data` and return the list of the frames that it completed."""
        cdef list out = []
        self.feed(data, len(data), out)
        return out

    def last_frames(self):
        """State that the stream has ended and return the frames which that completed; nothing may be fed afterwards."""
        cdef list out = []
        self.finish(out)
        return out
