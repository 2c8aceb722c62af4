# Which bodies are streams, and who frames them.

from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.wire.head cimport Head


cdef enum Stream:
    STREAM_NONE = 0
    STREAM_SSE
    STREAM_NDJSON
    STREAM_JSON_SEQ
    STREAM_EVENTSTREAM
    STREAM_GRPC
    STREAM_GRPC_WEB
    STREAM_GRPC_WEB_TEXT


# By the media type of the message. `types` is asked first: media types in lower case, and the Stream that each is, or None
cdef int stream_of(Head head, dict types) except -1
cdef int frame_bit_of(int stream) noexcept          # the FrameBit of its frames; 0: STREAM_NONE
cdef Framer framer_of(int stream, Head head, Py_ssize_t budget)
# The coding of compressed messages of a call; empty: it names none
cdef bytes grpc_encoding_of(Head head)
