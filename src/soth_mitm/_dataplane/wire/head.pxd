# One message head: its bytes, and where everything in them lies.
#
# A Head owns a copy of its bytes and holds only offsets into it, so it stays valid for as long as anything
# (the exchange, a handler, the pool) keeps it. `raw` is the head as HTTP/1 writes it, final CRLF CRLF
# included, whatever protocol it came in: in HTTP/2 its parser writes it so, as an HTTP/1.1 message.
# A parser (`http1/head_parser`, `http2/message`) fills it in, once; it is read-only afterwards.

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
    FIELD_HTTP2_SETTINGS,
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
from soth_mitm._dataplane.wire.target cimport ERROR_TARGETS_END
from soth_mitm._dataplane.memory.view cimport View


cdef enum:
    INLINE_FIELDS = 32


# Of the message, as its sender said it
cdef enum Version:
    HTTP_1_0 = 10
    HTTP_1_1 = 11
    HTTP_2 = 20


# What can be wrong with a head as a whole, numbered on from TargetError. The codes of parsers begin at
# ERROR_HEADS_END.
cdef enum HeadError:
    ERROR_HOST_MISSING = ERROR_TARGETS_END
    ERROR_HOST_TWICE
    ERROR_HOST
    ERROR_HOST_DISAGREES   # with an absolute-form target, which the parser puts right
    ERROR_CODING
    ERROR_CODING_TWICE
    ERROR_CODING_VERSION
    ERROR_CODING_AND_LENGTH
    ERROR_HEADS_END


cdef class Head:
    cdef readonly bytes raw
    cdef readonly bint is_request
    cdef uint8_t version           # Version
    cdef uint16_t error            # of a head that was refused: why

    # request line; offsets into raw
    cdef uint8_t method            # MethodName
    cdef uint32_t method_len       # the method begins at 0
    cdef uint32_t target
    cdef uint32_t target_len
    cdef uint8_t form              # TargetForm
    cdef bint target_sensitive     # it has what no HPACK table may keep
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

    # For parsers. `base` is where the offsets of the fields begin; `raw` may be set later.
    # Make room for `count` fields: 0, or -1 for a lack of memory
    cdef int reserve(self, int count) noexcept nogil
    # Gather what a known field says. It stands at fields[count], and `count` does not cover it yet. 0 or an error
    cdef int gather(self, const char* base, Field* field) noexcept nogil
    # Check what only all fields together can tell. 0 or an error
    cdef int check(self, const char* base) noexcept nogil
    cdef int check_host(self, const char* base) noexcept nogil
    # Begin again with the first field
    cdef void forget_fields(self) noexcept nogil

    cdef const char* base(self) noexcept
    cdef View span(self, uint32_t offset, uint32_t length) noexcept
    # The first field of that name, or -1; `find` takes lower-case bytes, `find_known` a FieldName
    cdef int find_known(self, int name) noexcept
    cdef int find(self, const char* name, Py_ssize_t length) noexcept
    # The target in origin-form (`*` for OPTIONS without a path); b"" for CONNECT
    cdef bytes origin_target(self)
    # Do persistence rules of RFC 9112 section 9.3 let the connection go on after this message?
    cdef bint keeps_alive(self) noexcept


# `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`
cdef str version_text(int version)

# None when `error` is none of HeadError
cdef str fact_error_text(int error)
