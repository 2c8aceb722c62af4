# The contract of every framer: content bytes in (transfer- and content-coding removed), StreamChunks out.

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from libc.string cimport memcpy

from soth_mitm._dataplane.http.messages cimport StreamChunk


cdef class Framer:
    # Take `length` bytes and append each StreamChunk that they complete to `out`. Never raises for bad input: what cannot be framed is
    # counted in `error_count`, and framing goes on (or, for a format without resynchronisation, stops: `failed`).
    # What comes out does not depend on how the bytes were split over calls. Memory held between calls stays within the budget and a
    # small constant.
    cdef readonly Py_ssize_t budget    # payload bytes that one frame may hold; a longer one is delivered cut, with `truncated`
    # of the frame that is being received: the budget, unless hold_no_more() was called since the one before it ended
    cdef Py_ssize_t most
    cdef readonly int error_count
    cdef readonly bint failed

    # Returns how many bytes were taken: all, unless it is `single`
    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length, list out) except -1
    # Bytes that are held of a frame which is not complete
    cdef Py_ssize_t unfinished(self) noexcept
    # Hold no more of the frame that is being received than is held of it, or than `least`
    cdef int hold_no_more(self, Py_ssize_t least) except -1
    # The stream ended: deliver what the format says is complete
    cdef int finish(self, list out) except -1

    # ---- for a filter, which holds the bytes of each frame until it is decided on
    # Set before the first feed: feed() returns behind each unit. A unit is a frame with what frames it, or bytes that belong to no frame;
    # all units together are the stream. A frame of which no more is kept may be delivered before its unit ends
    cdef bint single
    cdef readonly bint at_border       # the last byte that feed() took ended a unit
    # The frame that is being received as far as it has come, as one that is cut; feed() goes on to its border, and may deliver it again
    cdef StreamChunk peek(self)
    # What leaves of a unit that passes: `unit` itself, or the same spelt so that all readers read it as it was framed
    cdef bytes passed(self, bytes unit)
    # It would not be `unit` itself
    cdef bint is_odd(self, const char* unit, Py_ssize_t length) noexcept
    # What leaves in place of a frame's unit. ValueError: a payload cannot be a frame of this format
    cdef bytes rewritten(self, bytes unit, tuple payloads)


cdef inline int append_bytes(bytearray buffer, const char* data, Py_ssize_t length) except -1:
    """Append borrowed bytes to a buffer that nobody else holds."""
    cdef Py_ssize_t size = PyByteArray_GET_SIZE(buffer)
    if length > 0:
        PyByteArray_Resize(buffer, size + length)
        memcpy(PyByteArray_AS_STRING(buffer) + size, data, length)
    return 0


cdef tuple only_bytes(tuple payloads, str what)
