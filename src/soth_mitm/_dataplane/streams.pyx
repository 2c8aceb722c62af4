"""Which bodies are streams: event streams, lines of JSON, gRPC messages. Decided by the media type, for requests and responses alike."""

from soth_mitm._dataplane.frames cimport Framer
from soth_mitm._dataplane.grpc cimport GrpcFramer
from soth_mitm._dataplane.head cimport FIELD_CONTENT_TYPE, Head
from soth_mitm._dataplane.ndjson cimport NdjsonFramer
from soth_mitm._dataplane.scan cimport soth_equals_lower
from soth_mitm._dataplane.sse cimport SseFramer
from soth_mitm._dataplane.view cimport View, view_bytes


cdef bint is_type(View value, const char* name, Py_ssize_t length) noexcept:
    return value.len == length and soth_equals_lower(value.ptr, name, length)


cdef Stream stream_of(Head head) noexcept:
    cdef int index = head.find_known(FIELD_CONTENT_TYPE)
    cdef View value
    cdef Py_ssize_t end = 0
    if index < 0:
        return STREAM_NONE
    value = head.span(head.fields[index].value, head.fields[index].value_len)
    while end < value.len and value.ptr[end] != b";" and value.ptr[end] != b" " and value.ptr[end] != b"\t":
        end += 1
    value.len = end
    if is_type(value, b"text/event-stream", 17):
        return STREAM_SSE
    if is_type(value, b"application/x-ndjson", 20) or is_type(value, b"application/jsonl", 17):
        return STREAM_NDJSON
    if value.len >= 16 and soth_equals_lower(value.ptr, b"application/grpc", 16) and (value.len == 16 or value.ptr[16] == b"+"):
        return STREAM_GRPC
    return STREAM_NONE


cdef Framer framer_of(Stream stream, Head head, Py_ssize_t budget):
    cdef int index
    cdef bytes encoding = b""
    if stream == STREAM_SSE:
        return SseFramer(budget)
    if stream == STREAM_NDJSON:
        return NdjsonFramer(budget)
    index = head.find(b"grpc-encoding", 13)
    if index >= 0:
        encoding = view_bytes(head.span(head.fields[index].value, head.fields[index].value_len))
    return GrpcFramer(budget, encoding)
