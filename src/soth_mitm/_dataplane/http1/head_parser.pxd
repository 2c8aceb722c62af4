# Heads of HTTP/1: text in, a Head out.

from soth_mitm._dataplane.wire.head cimport Head


cdef enum:
    HEAD_MALFORMED = -1    # a rule is broken: head.error says which, head_error_text() words it
    HEAD_MORE = -2         # the final CRLF CRLF has not arrived
    # The head (final CRLF CRLF included) is, or can only become, longer than the limit; or it has
    # too many fields
    HEAD_TOO_LARGE = -3


# Parse the head at `data`. > 0: bytes consumed, `head` is filled in. Else one of the codes above
# and `head` is not to be used (except for `error`). `scanned` is kept by the caller between calls
# on the same, growing head (0 at first): what lies before it is not read again. The verdict and the
# limit do not depend on how the bytes were split over calls. One CRLF before a request is skipped
# (RFC 9112 section 2.2): it is consumed, but neither in `raw` nor counted by the limit. Bytes are
# counted as they came, field lines are `most_fields` at most.
cdef Py_ssize_t parse_request_head(Head head, const char* data, Py_ssize_t length, Py_ssize_t limit, int most_fields,
                                   Py_ssize_t* scanned) except -100
cdef Py_ssize_t parse_response_head(Head head, const char* data, Py_ssize_t length, Py_ssize_t limit, int most_fields,
                                    Py_ssize_t* scanned) except -100

# Why a head is HEAD_TOO_LARGE, worded to follow "the request head "
cdef bytes too_large_text(Head head, Py_ssize_t limit, int most_fields)

# One line for people, naming the rule that was broken and, where it helps, the header
cdef str head_error_text(int error)
