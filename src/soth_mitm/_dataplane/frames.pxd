# The contract of every framer: content bytes in (transfer- and content-coding removed), StreamChunks out.

cdef class Framer:
    # Take `length` bytes and append each StreamChunk that they complete to `out`. Never raises for bad input: what cannot be framed is
    # counted in `error_count`, and framing goes on (or, for a format without resynchronisation, stops: `failed`).
    cdef Py_ssize_t budget         # bytes that one frame may hold; a longer one is delivered cut, with `truncated`
    cdef readonly int error_count
    cdef readonly bint failed

    cdef int feed(self, const char* data, Py_ssize_t length, list out) except -1
    # The stream ended: deliver what the format says is complete
    cdef int finish(self, list out) except -1
