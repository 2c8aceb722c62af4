# What a handler is shown: requests, responses, stream chunks and their headers.
#
# Built only when the handler overrides the hook that receives them. They share the Head with the exchange and decode nothing until asked.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.head cimport Head


cdef class Headers:
    cdef Head head                 # None when built from pairs
    cdef bytes block               # field lines without a start line (trailers), or None
    cdef list pairs                # [(name, value)] as bytes, made on first use


cdef class RawRequest:
    cdef Head head
    cdef readonly object connection_meta
    cdef readonly int64_t flow_id
    cdef readonly str scheme
    cdef readonly str authority
    cdef public bytes raw_body     # public to _dataplane: the exchange completes it
    cdef public bint body_truncated
    cdef public bint body_complete
    cdef bytes trailer_block       # field lines, or None
    cdef Py_ssize_t decode_limit
    cdef Headers _headers
    cdef Headers _trailers
    cdef bytes _body
    cdef str _decode_error
    cdef bint _decoded


cdef class RawResponse:
    cdef Head head
    cdef readonly object connection_meta
    cdef readonly int64_t flow_id
    cdef readonly RawRequest request   # None when on_request is not overridden: see new_response
    cdef public bytes raw_body
    cdef public bint body_truncated
    cdef readonly bint streaming
    cdef bytes trailer_block
    cdef Py_ssize_t decode_limit
    cdef Headers _headers
    cdef Headers _trailers
    cdef bytes _body
    cdef str _decode_error
    cdef bint _decoded


# One SSE event, NDJSON line, gRPC message, WebSocket message or close. A framer fills in the first group, the flow's queue the second.
cdef class StreamChunk:
    cdef readonly bytes payload
    cdef readonly object frame_kind    # FrameKind
    cdef readonly bint truncated
    cdef readonly object event_type    # SSE: str or None
    cdef readonly object event_id
    cdef readonly object retry         # SSE: int (milliseconds) or None

    cdef readonly object connection_id
    cdef readonly int64_t flow_id
    cdef readonly str direction        # "to_client" or "to_upstream"
    cdef readonly int64_t sequence


cdef RawRequest new_request(Head head, object meta, int64_t flow_id, str scheme, str authority, bytes raw_body, Py_ssize_t decode_limit)
cdef RawResponse new_response(Head head, object meta, int64_t flow_id, RawRequest request, bytes raw_body, bint streaming,
                              Py_ssize_t decode_limit)
cdef StreamChunk new_chunk(bytes payload, object frame_kind, bint truncated)
