# Newline-delimited JSON (`application/x-ndjson`, `application/jsonl`).

from soth_mitm._dataplane.frames cimport Framer


cdef class NdjsonFramer(Framer):
    cdef object kind           # FrameKind.NDJSON_LINE
    cdef bytearray line        # what earlier feeds brought of the line being received, cut at the budget and two bytes

    cdef int end_line(self, const char* line, Py_ssize_t length, list out) except -1
    cdef int keep_partial(self, const char* data, Py_ssize_t length) except -1
