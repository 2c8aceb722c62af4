# Which bodies are streams, and who frames them.

from soth_mitm._dataplane.frames cimport Framer
from soth_mitm._dataplane.head cimport Head


cdef enum Stream:
    STREAM_NONE = 0
    STREAM_SSE
    STREAM_NDJSON
    STREAM_GRPC


# By the media type of the message
cdef Stream stream_of(Head head) noexcept
cdef Framer framer_of(Stream stream, Head head, Py_ssize_t budget)
