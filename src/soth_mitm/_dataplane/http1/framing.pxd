# Where a message ends: the one place that decides it (RFC 9112 section 6.3), for requests and
# responses.
#
# A Body is fed with the contiguous bytes that lie in the receiver's buffer. What it reports as
# consumed are bytes of this message, whole and checked: a chunk-size line or trailer section that
# is not complete yet is left in the buffer and asked for again. So consumed bytes can be relayed as
# they stand, framing and trailers included (but for a gap, see below), and nothing that could not
# be parsed ever leaves.

from libc.stdint cimport int64_t, uint8_t, uint16_t

from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.memory.view cimport View


cdef enum BodyKind:
    BODY_NONE = 0
    BODY_LENGTH
    BODY_CHUNKED
    BODY_UNTIL_CLOSE
    BODY_STREAM            # of HTTP/2: the stream says what is content, and where it ends


cdef enum BodyState:
    BODY_DATA = 0          # LENGTH, UNTIL_CLOSE, STREAM, or inside a chunk
    BODY_CHUNK_SIZE
    BODY_CHUNK_END         # the CRLF after a chunk's data
    BODY_TRAILERS
    BODY_DONE
    BODY_FAILED


cdef enum:
    MAX_CHUNK_LINE = 4096  # a chunk-size line with its extensions, CRLF included
    CHUNK_ALLOWANCE = 16   # of each such line, and twice its chunk's size: the rest of it counts as excess
    MAX_EXCESS = 16384     # of all chunks of a body together


cdef struct Body:
    uint8_t kind           # BodyKind
    uint8_t state          # BodyState
    uint16_t error         # set in BODY_FAILED; body_error_text() words it
    # Of the length, or of the current chunk; of a stream -1 when no length was announced; in
    # BODY_TRAILERS how far the section was scanned
    int64_t remaining
    int64_t payload_total  # content bytes reported so far, framing excluded
    int64_t excess         # chunk-size lines beyond their allowance
    Py_ssize_t trailer_limit   # bytes of the trailer section, its final CRLF included
    int most_fields        # in it
    bint loose             # of a response: read as real servers write it
    int trailers_dropped   # fields of the trailer section that are not to be sent on; set with BODY_DONE
    # White space among what body_next() has just consumed, which is not sent on: `gap_len` bytes,
    # `gap` bytes behind its beginning
    Py_ssize_t gap
    Py_ssize_t gap_len


# The framing of a request or response head. Of a request: 0, or -1 with body.error set: its framing
# is refused, which is answered 400. `request_method` is the MethodName of the request that the
# response answers.
cdef int body_of_request(Body* body, Head head, Py_ssize_t trailer_limit, int most_fields) noexcept
cdef void body_of_response(Body* body, Head head, int request_method, Py_ssize_t trailer_limit, int most_fields) noexcept

# Take the next piece of the body from the buffer.
#   > 0: so many bytes consumed (they may be framing only); `payload` is the content among them (len 0: none), borrowed from `data`;
#        bytes that lie before a fault are reported first, the fault by the next call;
#        when `trailers` is not NULL and this piece ends with the trailer section, it is set to the field lines (final CRLF excluded),
#        else len 0; when body.trailers_dropped, passing_trailers() takes what may leave out of them
#     0: more bytes are needed, or the body is done (body.state tells)
#    -1: malformed; state is BODY_FAILED and stays so
# An empty body (BODY_NONE, length 0) is BODY_DONE from the start.
cdef Py_ssize_t body_next(Body* body, const char* data, Py_ssize_t length, View* payload, View* trailers) noexcept nogil

# The same with at most `most` bytes of content, of which 0 leaves what frames it
cdef Py_ssize_t body_next_within(Body* body, const char* data, Py_ssize_t length, Py_ssize_t most, View* payload,
                                 View* trailers) noexcept nogil

# Of a body that was consumed before and whose content was taken out of it: how many bytes of what
# is left stand before the next run of content, whose length `run` is. For as long as content is
# left, that is, and from a Body as it was at the beginning.
cdef Py_ssize_t body_framing_due(Body* body, const char* data, Py_ssize_t length, int64_t* run) noexcept nogil

# The body stands inside a chunk, of whose data `remaining` bytes come next: when the run that
# body_framing_due() has just told of lies partly elsewhere.
cdef void body_reenter(Body* body, int64_t remaining) noexcept nogil

# The body of a head that came on a stream (RFC 9113 section 8.1.1); `request_method` is that of the
# request that a response answers. 0, or -1 with body.error set: a CONNECT request has no content.
cdef int body_of_stream(Body* body, Head head, int request_method) noexcept
# The same for content that is collected
cdef void body_without_framing(Body* body) noexcept nogil
# So many bytes of content came, or the stream said that no more will. 0, or -1 with body.error set:
# the sum is not what Content-Length announced.
cdef int body_add(Body* body, Py_ssize_t length) noexcept nogil
cdef int body_end(Body* body) noexcept nogil

# The connection ended. 0: that completes the body (UNTIL_CLOSE), or it was done; -1: the body is
# cut.
cdef int body_eof(Body* body) noexcept nogil

cdef str body_error_text(int error)
