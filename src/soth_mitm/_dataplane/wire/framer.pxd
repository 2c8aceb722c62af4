# The contract of every framer: content bytes in (transfer- and content-coding removed), StreamChunks out.

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from libc.string cimport memcpy


cdef class Framer:
    # Take `length` bytes and append each StreamChunk that they complete to `out`. Never raises for bad input: what cannot be framed is
    # counted in `error_count`, and framing goes on (or, for a format without resynchronisation, stops: `failed`).
    # What comes out does not depend on how the bytes were split over calls. Memory held between calls stays within the budget and a
    # small constant.
    cdef readonly Py_ssize_t budget    # payload bytes that one frame may hold; a longer one is delivered cut, with `truncated`
    cdef readonly int error_count
    cdef readonly bint failed

    cdef int feed(self, const char* data, Py_ssize_t length, list out) except -1
    # Bytes that are held of a frame which is not complete
    cdef Py_ssize_t unfinished(self) noexcept
    # The stream ended: deliver what the format says is complete
    cdef int finish(self, list out) except -1


cdef inline int append_bytes(bytearray buffer, const char* data, Py_ssize_t length) except -1:
    """Append borrowed bytes to a buffer that nobody else holds."""
    cdef Py_ssize_t size = PyByteArray_GET_SIZE(buffer)
    if length > 0:
        PyByteArray_Resize(buffer, size + length)
        memcpy(PyByteArray_AS_STRING(buffer) + size, data, length)
    return 0
