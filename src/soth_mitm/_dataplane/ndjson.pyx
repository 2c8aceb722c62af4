"""Cut newline-delimited JSON into lines. What is in a line is not looked at: a chunk's payload is the line without its LF or CRLF."""

import cython

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr

from soth_mitm._dataplane.frames cimport Framer, append_bytes
from soth_mitm._dataplane.messages cimport new_chunk

from soth_mitm._dataplane.messages import FrameKind


cdef enum:
    CR = 13
    LF = 10
    # beyond the budget a line may have its CR, and one more byte shows that it is too long
    LINE_SLACK = 2


cdef inline bint is_blank(const char* line, Py_ssize_t length) noexcept nogil:
    """Tell whether there is nothing but JSON's white space (RFC 8259 section 2)."""
    cdef Py_ssize_t at
    for at in range(length):
        if line[at] != b" " and line[at] != b"\t" and line[at] != b"\r":
            return False
    return True


@cython.final
cdef class NdjsonFramer(Framer):
    """Framer of NDJSON lines. Blank lines are skipped; the last line is delivered at the end of the stream even without its LF."""

    def __cinit__(self, budget):
        self.kind = FrameKind.NDJSON_LINE
        self.line = bytearray()

    cdef int feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef const char* at = data
        cdef const char* end = data + length
        cdef const char* lf
        while at < end:
            lf = <const char*>memchr(at, LF, end - at)
            if lf == NULL:
                self.keep_partial(at, end - at)
                break
            if PyByteArray_GET_SIZE(self.line) > 0:
                self.keep_partial(at, lf - at)
                self.finish(out)
            else:
                self.end_line(at, lf - at, out)
            at = lf + 1
        return 0

    cdef Py_ssize_t unfinished(self) noexcept:
        return PyByteArray_GET_SIZE(self.line)

    cdef int finish(self, list out) except -1:
        if PyByteArray_GET_SIZE(self.line) > 0:
            self.end_line(PyByteArray_AS_STRING(self.line), PyByteArray_GET_SIZE(self.line), out)
            PyByteArray_Resize(self.line, 0)
        return 0

    cdef int keep_partial(self, const char* data, Py_ssize_t length) except -1:
        return append_bytes(self.line, data, min(length, self.budget + LINE_SLACK - PyByteArray_GET_SIZE(self.line)))

    cdef int end_line(self, const char* line, Py_ssize_t length, list out) except -1:
        """Deliver a line, its LF excluded."""
        # Judge only what keep_partial would have kept, so that the split of the reads decides nothing
        length = min(length, self.budget + LINE_SLACK)
        if is_blank(line, length):
            return 0
        if line[length - 1] == CR:
            length -= 1
        out.append(new_chunk(PyBytes_FromStringAndSize(line, min(length, self.budget)), self.kind, length > self.budget))
        return 0
