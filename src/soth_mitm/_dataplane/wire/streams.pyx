"""Which bodies are streams: event streams, lines of JSON, gRPC messages. Decided by the media type, for requests and responses alike."""

from soth_mitm._dataplane.http.messages cimport BIT_EVENTSTREAM, BIT_GRPC, BIT_NDJSON, BIT_SSE
from soth_mitm._dataplane.wire.eventstream cimport EventStreamFramer
from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.wire.grpc cimport GrpcFramer
from soth_mitm._dataplane.wire.head cimport FIELD_CONTENT_TYPE, Head
from soth_mitm._dataplane.wire.ndjson cimport JsonSeqFramer, NdjsonFramer
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower
from soth_mitm._dataplane.wire.sse cimport SseFramer
from soth_mitm._dataplane.memory.view cimport View, view_bytes

# What `streams.types` calls them
STREAMS = {
    "sse": STREAM_SSE,
    "ndjson": STREAM_NDJSON,
    "json_seq": STREAM_JSON_SEQ,
    "eventstream": STREAM_EVENTSTREAM,
    "grpc": STREAM_GRPC,
    "grpc_web": STREAM_GRPC_WEB,
    "grpc_web_text": STREAM_GRPC_WEB_TEXT,
}


cdef bint is_type(View value, const char* name, Py_ssize_t length) noexcept:
    return value.len == length and soth_equals_lower(value.ptr, name, length)


cdef bint is_type_with_suffix(View value, const char* name, Py_ssize_t length) noexcept:
    """Tell whether it is this type, by itself or with a format behind a plus."""
    return value.len >= length and soth_equals_lower(value.ptr, name, length) and (value.len == length or value.ptr[length] == b"+")


cdef inline bint may_be_stream(View value) noexcept:
    """Tell what most types are not: `text/` something, or `application/` and the first letter of one of the types below."""
    cdef char letter
    if value.len < 16:
        return False
    letter = value.ptr[12] | 0x20
    return value.ptr[0] | 0x20 == c"t" or letter == c"x" or letter == c"j" or letter == c"s" or letter == c"g" or letter == c"v"


cdef int stream_of(Head head, dict types) except -1:
    cdef int index = head.find_known(FIELD_CONTENT_TYPE)
    cdef View value
    cdef Py_ssize_t end = 0
    if index < 0:
        return STREAM_NONE
    value = head.span(head.fields[index].value, head.fields[index].value_len)
    if types is None and not may_be_stream(value):
        return STREAM_NONE
    while end < value.len and value.ptr[end] != b";" and value.ptr[end] != b" " and value.ptr[end] != b"\t":
        end += 1
    value.len = end
    if types is not None:
        found = types.get(view_bytes(value).lower())
        if found is not None:
            return found
    if is_type(value, b"text/event-stream", 17):
        return STREAM_SSE
    if value.len < 16 or not soth_equals_lower(value.ptr, b"application/", 12):
        return STREAM_NONE
    if (is_type(value, b"application/x-ndjson", 20) or is_type(value, b"application/jsonl", 17)
            or is_type(value, b"application/stream+json", 23)):
        return STREAM_NDJSON
    if is_type_with_suffix(value, b"application/grpc", 16):
        return STREAM_GRPC
    if is_type_with_suffix(value, b"application/grpc-web", 20):
        return STREAM_GRPC_WEB
    if is_type_with_suffix(value, b"application/grpc-web-text", 25):
        return STREAM_GRPC_WEB_TEXT
    if is_type(value, b"application/json-seq", 20):
        return STREAM_JSON_SEQ
    return STREAM_EVENTSTREAM if is_type(value, b"application/vnd.amazon.eventstream", 34) else STREAM_NONE


cdef int frame_bit_of(int stream) noexcept:
    if stream == STREAM_NONE:
        return 0
    if stream == STREAM_SSE:
        return BIT_SSE
    if stream == STREAM_NDJSON or stream == STREAM_JSON_SEQ:
        return BIT_NDJSON
    return BIT_EVENTSTREAM if stream == STREAM_EVENTSTREAM else BIT_GRPC


cdef Framer framer_of(int stream, Head head, Py_ssize_t budget):
    if stream == STREAM_SSE:
        return SseFramer(budget)
    if stream == STREAM_NDJSON:
        return NdjsonFramer(budget)
    if stream == STREAM_JSON_SEQ:
        return JsonSeqFramer(budget)
    if stream == STREAM_EVENTSTREAM:
        return EventStreamFramer(budget)
    return GrpcFramer(budget, grpc_encoding_of(head), stream == STREAM_GRPC_WEB, stream == STREAM_GRPC_WEB_TEXT)


cdef bytes grpc_encoding_of(Head head):
    cdef int index = head.find(b"grpc-encoding", 13)
    return b"" if index < 0 else view_bytes(head.span(head.fields[index].value, head.fields[index].value_len))
