# Messages (RFC 9113 section 8): field lists become the heads that every other part knows, and heads
# become field lists. What an HTTP/1 message could not say is refused here, before anything is written.

from soth_mitm._dataplane.http2.hpack_decoder cimport FieldList
from soth_mitm._dataplane.http2.hpack_encoder cimport HpackEncoder
from soth_mitm._dataplane.http2.octets cimport Octets
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


# What is wrong with a field list. All but the last make the message malformed: a stream error.
cdef enum MessageFault:
    MESSAGE_OK = 0
    MESSAGE_NAME               # no token in lower case
    MESSAGE_VALUE              # a byte that may not stand in a value
    MESSAGE_PSEUDO_LATE        # behind a field that is none
    MESSAGE_PSEUDO_TWICE
    MESSAGE_PSEUDO_UNKNOWN     # or of the other kind of message
    MESSAGE_PSEUDO_SET         # not those that this method asks for
    MESSAGE_METHOD
    MESSAGE_SCHEME
    MESSAGE_PATH
    MESSAGE_AUTHORITY
    MESSAGE_HOST               # twice, or not what :authority says
    MESSAGE_PROTOCOL           # extended CONNECT, which was not offered, or no token
    MESSAGE_STATUS
    MESSAGE_CONNECTION         # a field that concerns one connection
    MESSAGE_TE
    MESSAGE_LENGTH
    MESSAGE_TRAILER            # a pseudo-header in trailers
    MESSAGE_TRAILER_NAME       # TRAILER_REFUSED
    MESSAGE_TOO_MANY           # fields: no fault of form


# What a request says besides its head. The view lies in the field list.
cdef struct RequestFacts:
    bint https
    View protocol              # :protocol (RFC 8441), len 0: none


# Fill in a new head. Its `raw` is the message as HTTP/1.1 would have it, so that an HTTP/1.1 peer can be
# sent it as it stands; cookie crumbs are one field, `host` comes first. Values lose white space around
# them, and nothing else is mended. A MessageFault.
cdef int read_request(FieldList fields, Head head, bint may_extend, int most_fields, RequestFacts* facts) except -1
cdef int read_response(FieldList fields, Head head, int most_fields) except -1
# Append trailers as field lines, each with its CRLF; `dropped`: how many fields are not among them, since they may not be trailers
cdef int read_trailers(FieldList fields, bint is_request, int most_fields, Octets lines, int* dropped) except -1

# Append the block of a head. What concerns one connection stays behind, names become lower-case, cookies
# are split, `edits` (None: none) are applied. `authority` is used when the head names none; `protocol`
# of len 0 is none.
cdef int write_request(HpackEncoder encoder, Octets out, Octets scratch, Head head, HeadEdits edits, bint https,
                       View authority, View protocol) except -1
cdef int write_response(HpackEncoder encoder, Octets out, Octets scratch, Head head, HeadEdits edits) except -1
# Field lines, each with its CRLF; those that may not be trailers are left out
cdef int write_trailers(HpackEncoder encoder, Octets out, Octets scratch, bytes lines) except -1
# A response of our own: (bytes, bytes) pairs, and the length of its content, -1 for none
cdef int write_own_response(HpackEncoder encoder, Octets out, Octets scratch, int status, object headers,
                            Py_ssize_t length) except -1

# One line for people
cdef str message_fault_text(int fault)
