# One parsed message head: the bytes as received, and where everything in them lies.
#
# A Head owns a copy of its bytes (`raw`, final CRLF CRLF included; what is not written as it should be is put right there) and holds only
# offsets into it, so it stays valid for as long as anybody (the exchange, a handler, the pool) keeps it. A head is parsed once, by
# `parse_request_head` or `parse_response_head`, and is read-only afterwards.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

# Fields, methods and target forms are part of what a Head says: they may be cimported from here too.
from soth_mitm._dataplane.wire.fields cimport (
    FIELD_AUTHORIZATION,
    FIELD_CONNECTION,
    FIELD_CONTENT_ENCODING,
    FIELD_CONTENT_LENGTH,
    FIELD_CONTENT_TYPE,
    FIELD_EXPECT,
    FIELD_HOST,
    FIELD_KEEP_ALIVE,
    FIELD_OTHER,
    FIELD_PROXY_AUTHENTICATE,
    FIELD_PROXY_AUTHORIZATION,
    FIELD_PROXY_CONNECTION,
    FIELD_TE,
    FIELD_TRAILER,
    FIELD_TRANSFER_ENCODING,
    FIELD_UPGRADE,
    FIELD_WWW_AUTHENTICATE,
    Field,
    FieldName,
)
from soth_mitm._dataplane.wire.target cimport (
    METHOD_CONNECT,
    METHOD_DELETE,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_OPTIONS,
    METHOD_OTHER,
    METHOD_PATCH,
    METHOD_POST,
    METHOD_PUT,
    METHOD_TRACE,
    MethodName,
    TARGET_ABSOLUTE,
    TARGET_ASTERISK,
    TARGET_AUTHORITY,
    TARGET_ORIGIN,
    TargetForm,
)
from soth_mitm._dataplane.memory.view cimport View


cdef enum:
    HEAD_MALFORMED = -1    # a rule is broken: head.error says which, head_error_text() words it
    HEAD_MORE = -2         # the final CRLF CRLF has not arrived
    HEAD_TOO_LARGE = -3    # the head (final CRLF CRLF included) is, or can only become, longer than the limit; or it has too many fields

    INLINE_FIELDS = 32


# Of the message, as its sender said it
cdef enum Version:
    HTTP_1_0 = 10
    HTTP_1_1 = 11
    HTTP_2 = 20


cdef class Head:
    cdef readonly bytes raw
    cdef readonly bint is_request
    cdef uint8_t version           # Version
    cdef uint16_t error            # set when parsing answered HEAD_MALFORMED

    # request line; offsets into raw
    cdef uint8_t method            # MethodName
    cdef uint32_t method_len       # the method begins at 0
    cdef uint32_t target
    cdef uint32_t target_len
    cdef uint8_t form              # TargetForm
    # absolute- and authority-form: where authority and path lie in raw (path_len is 0 for `http://host`, the path may begin with `?`);
    # in the other forms the path is the whole target. origin_target() gives what an origin is sent.
    cdef bint https                # absolute-form whose scheme is https
    cdef uint32_t authority
    cdef uint32_t authority_len
    cdef uint32_t path
    cdef uint32_t path_len

    # status line
    cdef readonly uint16_t status
    cdef uint32_t reason
    cdef uint32_t reason_len

    # facts, gathered in the same pass
    cdef int64_t content_length    # -1: none
    cdef bint length_repeated      # its identical repeats are one value here; the writer must write it once
    cdef bint chunked              # Transfer-Encoding is exactly one final `chunked`
    cdef bint connection_close
    cdef bint connection_keep_alive
    cdef bint connection_upgrade
    cdef bint expect_continue
    cdef bint has_hop              # a field was parsed that concerns one connection only
    cdef int host                  # index of the Host field, -1: none

    cdef int count
    cdef int room                  # for fields
    cdef Field* fields             # inline_fields, or an allocation of its own
    cdef Field inline_fields[INLINE_FIELDS]

    cdef const char* base(self) noexcept
    cdef View span(self, uint32_t offset, uint32_t length) noexcept
    # The first field of that name, or -1; `find` takes lower-case bytes, `find_known` a FieldName
    cdef int find_known(self, int name) noexcept
    cdef int find(self, const char* name, Py_ssize_t length) noexcept
    # The target in origin-form (`*` for OPTIONS without a path); b"" for CONNECT
    cdef bytes origin_target(self)
    # Do persistence rules of RFC 9112 section 9.3 let the connection go on after this message?
    cdef bint keeps_alive(self) noexcept


# Parse the head at `data`. > 0: bytes consumed, `head` is filled in. Else one of the codes above and `head` is not to be used (except for
# `error`). `scanned` is kept by the caller between calls on the same, growing head (0 at first): what lies before it is not read again.
# The verdict and the limit do not depend on how the bytes were split over calls. One CRLF before a request is skipped (RFC 9112 section
# 2.2): it is consumed, but neither in `raw` nor counted by the limit.
# Bytes are counted as they came, field lines are `most_fields` at most.
cdef Py_ssize_t parse_request_head(Head head, const char* data, Py_ssize_t length, Py_ssize_t limit, int most_fields,
                                   Py_ssize_t* scanned) except -100
cdef Py_ssize_t parse_response_head(Head head, const char* data, Py_ssize_t length, Py_ssize_t limit, int most_fields,
                                    Py_ssize_t* scanned) except -100

# `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`
cdef str version_text(int version)

# Why a head is HEAD_TOO_LARGE, worded to follow "the request head "
cdef bytes too_large_text(Head head, Py_ssize_t limit, int most_fields)

# One line for people, naming the rule that was broken and, where it helps, the header
cdef str head_error_text(int error)
