# Messages of `application/vnd.amazon.eventstream`, as streaming APIs of AWS send them.

from libc.stdint cimport uint32_t

from soth_mitm._dataplane.wire.framer cimport Framer


cdef enum:
    PRELUDE = 12               # total length, length of the headers, checksum of these
    CHECKSUM = 4               # of the whole message, behind it
    MOST_HEADERS = 131072      # what the format allows


cdef class EventStreamFramer(Framer):
    cdef object kind           # FrameKind.EVENTSTREAM_MESSAGE
    cdef bytearray held        # prelude, headers and as much of the payload as the budget allows
    cdef uint32_t total        # of the message being received, 0 before its prelude is whole
    cdef uint32_t headers
    cdef uint32_t seen         # bytes of it that have come
    cdef uint32_t checksum     # of those of them that it covers
    cdef bytearray tail        # the checksum that it says, as far as it has come

    cdef int begin(self) except -1
    cdef int deliver(self, list out) except -1
    cdef object event_type(self, const char* at, const char* end)
