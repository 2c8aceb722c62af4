# Newline-delimited JSON (`application/x-ndjson`, `application/jsonl`), and JSON text sequences (`application/json-seq`).

from soth_mitm._dataplane.wire.framer cimport Framer


cdef class NdjsonFramer(Framer):
    cdef object kind           # FrameKind.NDJSON_LINE
    cdef bytearray line        # what earlier feeds brought of the line being received, cut at the budget and two bytes

    cdef int end_line(self, const char* line, Py_ssize_t length, list out) except -1
    cdef int keep_partial(self, const char* data, Py_ssize_t length) except -1


cdef class JsonSeqFramer(Framer):
    cdef object kind           # FrameKind.NDJSON_LINE
    cdef bytearray text        # what has come of the text being received, cut at the budget
    cdef bint truncated        # more than white space was cut
    cdef Py_ssize_t depth      # of the brackets that are open in it
    cdef bint in_string
    cdef bint escaped          # the last byte in the string was a backslash
    cdef bint begun            # it has more than white space

    cdef int keep(self, const char* data, Py_ssize_t length) except -1
    cdef int end_text(self, list out) except -1
