# Server-sent events: the `text/event-stream` parser of the WHATWG HTML standard, section 9.2.6.

from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.memory.view cimport View


cdef enum:
    MAX_FIELD = 16384      # bytes of an `id` or `event` value; a longer one is ignored and counted as an error
    MAX_RETRY_DIGITS = 15  # likewise `retry`


cdef class SseFramer(Framer):
    cdef object kind           # FrameKind.SSE_DATA

    # the line being received
    cdef bytearray line        # what earlier feeds brought of it, as much as can still matter
    cdef bint after_cr         # the last byte was CR: an LF that comes next belongs to it
    cdef bint first_line       # a byte order mark is skipped here
    # Of a framer that is `single`
    cdef bint cr_waits         # the last byte was CR, and the line ends with it unless an LF comes next
    cdef int mark              # how much of a byte order mark has come, with which the stream begins; -1: it does not, or that is past
    cdef bint in_block         # a field has come since the last blank line

    # the event being received
    cdef View held             # its only data value, borrowed from the feed at hand or from `line`; ptr NULL when there is none
    cdef bytearray data        # its data values so far, joined by LF, when they had to be copied
    cdef bint has_data         # it has a data field, so it will be dispatched
    cdef bint truncated
    cdef bytes event_type      # None: not set

    # kept over events
    cdef str last_event_id     # None: never set
    cdef object retry          # set since the last chunk, or None

    cdef Py_ssize_t take_mark(self, const char* data, Py_ssize_t length) except -1
    cdef int end_kept_line(self, list out) except -1
    cdef int end_line(self, const char* line, Py_ssize_t length, list out) except -1
    cdef int keep_partial(self, const char* data, Py_ssize_t length) except -1
    cdef int take_field(self, const char* name, Py_ssize_t name_len, const char* value, Py_ssize_t length) except -1
    cdef int add_data(self, const char* value, Py_ssize_t length) except -1
    cdef int copy_held(self) except -1
    cdef int dispatch(self, list out) except -1
