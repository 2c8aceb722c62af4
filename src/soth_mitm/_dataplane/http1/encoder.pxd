# Messages as they leave. What RFC 9110 section 7.6 orders to remove is removed; every other byte
# leaves as it came.

from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


cdef enum:
    CHUNK_LINE_ROOM = 20

# The request head for the upstream, in HTTP/1.1 whatever the client speaks (RFC 9112 section 2.3):
# absolute-form becomes origin-form (and the Host field agrees with it already: parsing saw to
# that), fields with `hop` set are left out, a request without Host is given `authority`, and
# Max-Forwards of TRACE and OPTIONS counts down; `keep_upgrade` keeps Connection and Upgrade for an
# upgrade that is relayed; `edits` change header fields, and replace what the head says of its
# framing when they frame it. Returns `head.raw` itself when nothing changes.
cdef bytes request_head_bytes(Head head, bint keep_upgrade, str authority, HeadEdits edits=*)

# The response head for the client: version HTTP/1.1, hop fields left out, `Connection: close` added
# when `close`, `Connection: keep-alive` when `keep_alive_10` (the client speaks HTTP/1.0 and the
# connection goes on). Interim heads likewise. Fields that announce a framing that is not there are
# left out: of a body that the status has not (RFC 9112 section 6.1, RFC 9110 section 8.6), and
# chunks when they are taken off for a client that speaks HTTP/1.0 (`to_10`).
cdef bytes response_head_bytes(Head head, bint close, bint keep_alive_10, bint keep_upgrade,
                               bint to_10, HeadEdits edits=*)

# Write the line before a chunk's data to `out`, which holds CHUNK_LINE_ROOM bytes; returns its
# length. `length` is that of the data, more than 0. CRLF follows the data.
cdef int chunk_line(char* out, Py_ssize_t length) noexcept nogil

# What follows the last chunk of data: the chunk of length 0, the trailers and the empty line.
# `trailers` are field lines, each with its CRLF; None: there are none.
cdef bytes last_chunk(bytes trailers)

# A whole answer of ours: status line, `Content-Type: text/plain; charset=utf-8` unless given, exact
# Content-Length, optional extra headers ((bytes, bytes) pairs, already validated), `Connection:
# close` when `close`; the body is left out for HEAD (`head_only`) but counted.
cdef bytes own_response_bytes(int status, bytes body, object headers, bint close, bint head_only)

# The head alone of such an answer, with no length; `chunked`: chunks follow.
cdef bytes own_head_bytes(int status, object headers, bint close, bint chunked)

# What people are told: nothing, or text that ends with a line feed, so that the next prompt of a
# shell stands on a line of its own.
cdef bytes text_line(bytes text)

# The usual reason phrase of a status, b"" if it has none
cdef bytes reason_of(int status)
