# What a handler is shown: requests, responses, stream chunks and their headers.
#
# Built only when the handler overrides the hook that receives them. They share the Head with the exchange and decode nothing until asked.
# Python sees every attribute read-only; the exchange completes a message by writing them: `raw_body`, `body_truncated`, `body_complete`
# and `trailer_block` of a message, the second group of a StreamChunk.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.headers cimport Headers


# The kinds of frames as bits, in the order of FrameKind
cdef enum FrameBit:
    BIT_SSE = 1
    BIT_NDJSON = 2
    BIT_GRPC = 4
    BIT_EVENTSTREAM = 8
    BIT_WEBSOCKET_TEXT = 16
    BIT_WEBSOCKET_BINARY = 32


# What RawRequest and RawResponse have in common
cdef class Message:
    cdef Head head
    cdef readonly object connection_meta
    cdef readonly int64_t flow_id
    cdef readonly bytes raw_body
    cdef readonly bint body_truncated
    cdef bytes trailer_block       # field lines, each with its CRLF, or None
    cdef Py_ssize_t decode_limit
    cdef Headers _headers
    cdef Headers _trailers
    cdef bytes decoded_from        # the raw_body that `_body` and `_decode_error` were made of, None when none was
    cdef bytes _body
    cdef str _decode_error

    cdef int decode(self) except -1
    cdef int decoded(self, tuple result) except -1
    cdef bint is_cut(self) noexcept    # `raw_body` is only the beginning of the body


cdef class RawRequest(Message):
    cdef readonly str scheme
    cdef readonly str authority
    cdef readonly bint body_complete   # new_request says True; the exchange says otherwise
    cdef double began_at           # on the clock of time.monotonic(), when its head had come; 0 where that is not known
    cdef bint conversation         # it was decided on at its head, and what follows that is not shown
    cdef bint has_body             # also one of no bytes whose end the head does not say
    cdef bint keeps_upgrade        # it asks for another protocol, which is relayed
    cdef Py_ssize_t head_limit     # of a changed head: max_http_head_bytes, max_header_fields
    cdef int most_fields

    # What decode() does apart from the loop, where more than `most` bytes go in or come out: the arguments for decode_body(). None: it is
    # done, or there is nothing to do
    cdef tuple decode_little(self, Py_ssize_t most)
    # ValueError: `decision`, a HandlerDecision.forward(), cannot be applied to this request
    cdef int check_change(self, object decision) except -1


cdef class RawResponse(Message):
    cdef readonly RawRequest request   # None when on_request is not overridden: see new_response
    cdef readonly bint streaming
    cdef readonly bint body_complete   # new_response says True; the exchange says otherwise
    cdef bint was_held                 # on_response_body is asked about it
    cdef readonly object _note         # that the decision before left for this one (ResponseDecision._note), or None
    cdef Py_ssize_t head_limit         # of what a decision makes of it
    cdef int most_fields

    # ValueError: `decision`, a ResponseDecision.change() or replace(), cannot be applied to this response
    cdef int check_change(self, object decision) except -1
    # The length of the body that `decision` sends; -1: it is not known, or the body stays
    cdef int64_t length_of(self, object decision) except -2
    cdef int64_t ranged_length(self) except -2         # of a 206's body; -1: not known
    cdef bint takes_identity(self, object decision) except -1
    cdef RawResponse again(self, Head head)            # with another head, and nothing that depends on it


# One SSE event, NDJSON line, gRPC message, WebSocket message or close. A framer fills in the first group, the flow's queue the second.
cdef class StreamChunk:
    cdef readonly bytes payload
    cdef readonly object frame_kind    # FrameKind
    cdef readonly bint truncated
    cdef readonly bint complete        # unless it is truncated, or the stream ended before it
    cdef readonly object event_type    # SSE, messages of AWS: str, else None
    cdef readonly object event_id      # SSE: str or None
    cdef readonly object retry         # SSE: int (milliseconds) or None
    cdef readonly bint replaced        # the handler sent it in place of what came
    cdef readonly bint injected        # the handler sent it unasked

    cdef readonly object connection_id
    cdef readonly object connection_meta
    cdef readonly int64_t flow_id
    cdef readonly RawRequest request   # the flow's, None in a chunk that was built without one
    cdef readonly str direction        # "to_client" or "to_upstream"
    cdef readonly int64_t sequence
    cdef readonly object _note         # that the decision about the response left (ResponseDecision._note), or None


cdef RawRequest new_request(Head head, object meta, int64_t flow_id, str scheme, str authority, bytes raw_body, Py_ssize_t decode_limit)
cdef RawResponse new_response(Head head, object meta, int64_t flow_id, RawRequest request, bytes raw_body, bint streaming,
                              Py_ssize_t decode_limit)
cdef StreamChunk new_chunk(bytes payload, object frame_kind, bint truncated)
cdef StreamChunk copy_of_chunk(StreamChunk chunk)
# What is sent in place of a chunk; ValueError: `payloads`, of a ChunkDecision.replace(), cannot be
cdef list chunks_in_place(StreamChunk chunk, tuple payloads)
