# Field lines (RFC 9112 section 5): one set of rules for heads and for trailer sections.

from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef enum:
    USUAL_FIELDS = 256     # field lines in one head or trailer section, unless max_header_fields says otherwise
    MAX_OPTIONS = 64       # in all Connection fields of a head together


# Which header a field is; OTHER for all that the proxy itself does not act upon.
cdef enum FieldName:
    FIELD_OTHER = 0
    FIELD_CONNECTION
    FIELD_CONTENT_ENCODING
    FIELD_CONTENT_LENGTH
    FIELD_CONTENT_TYPE
    FIELD_EXPECT
    FIELD_HOST
    FIELD_KEEP_ALIVE
    FIELD_PROXY_AUTHENTICATE
    FIELD_PROXY_AUTHORIZATION
    FIELD_PROXY_CONNECTION
    FIELD_TE
    FIELD_TRAILER
    FIELD_TRANSFER_ENCODING
    FIELD_UPGRADE
    FIELD_WWW_AUTHENTICATE
    FIELD_AUTHORIZATION
    FIELD_HTTP2_SETTINGS


cdef struct Field:
    uint32_t line          # offset of the field line in its block
    uint32_t line_len      # its length, CRLF included
    uint32_t name_len      # the name begins at `line`
    uint32_t value         # offset of the value, surrounding white space excluded
    uint32_t value_len
    uint8_t name           # FieldName
    uint8_t hop            # 1: stops here (RFC 9110 section 7.6.1, and proxy-authorization); the writer leaves it out
    uint8_t sensitive      # 1: HPACK said never to index it (RFC 7541 section 7.1.3); 0 in HTTP/1


cdef struct ConnectionOptions:
    bint close
    bint keep_alive
    bint upgrade


# What can be wrong with a block of lines. The codes of head.pyx and body.pyx begin at ERROR_FIELDS_END, so one number says it all.
cdef enum FieldError:
    ERROR_NONE = 0
    ERROR_BARE_LF
    ERROR_BARE_CR
    ERROR_CONTROL
    ERROR_FOLD
    ERROR_NO_NAME
    ERROR_NAME
    ERROR_NAME_SPACE
    ERROR_NO_COLON
    ERROR_LENGTH
    ERROR_LENGTH_RANGE
    ERROR_LENGTHS_DIFFER
    ERROR_OPTIONS
    ERROR_OWN_FIELD
    ERROR_FIELDS_END


# The error that a negative answer of soth_find_block_end stands for
cdef int block_error(Py_ssize_t end) noexcept nogil

# Read the field line at base + offset. `end` is where the block's final empty line begins; the block has passed soth_find_block_end, so a
# CR in it is a line's end. 0 and `field` filled in (hop is 0), or a FieldError.
cdef int parse_field_line(const char* base, uint32_t offset, uint32_t end, Field* field) noexcept nogil

# Which known header the name is, whatever its case
cdef int field_name(const char* name, size_t length) noexcept nogil

# Can this be a field that we write? 0 or a FieldError. White space around the value is not refused.
cdef int check_field(const char* name, size_t name_len, const char* value,
                     size_t value_len) noexcept nogil

# Does the field frame or route the message, concern the connection, or open a WebSocket? Only the
# proxy sets such.
cdef bint is_own_field(const char* name, size_t length) noexcept nogil

# What becomes of a field that stands in a trailer section (RFC 9110 section 6.5.1), the same in every version of HTTP
cdef enum TrailerRule:
    TRAILER_PASSES = 0
    TRAILER_DROPPED        # a recipient that merges trailers into the head would act upon it
    TRAILER_REFUSED        # it says how the message is framed, where it goes or what the connection is: the message is malformed

# `base` is what the field's `line` counts from
cdef int trailer_rule(const char* base, const Field* field) noexcept nogil

# Of field lines that parse_field_line accepts, each with its CRLF: those that may be trailers
cdef bytes passing_trailers(const char* lines, uint32_t length)

# Read one Content-Length value, which may list one number several times (RFC 9110 section 8.6). `number` is -1 before the first; `repeated`
# is set when it was there already. 0 or a FieldError.
cdef int read_content_length(const char* value, uint32_t length, int64_t* number, bint* repeated) noexcept nogil

# Read the options of all Connection fields, and set `hop` on the fields that they name and may take away. 0 or a FieldError.
cdef int read_connection(const char* base, Field* fields, int count, ConnectionOptions* options) noexcept nogil

# Set `hop` on every field of this name, whatever its case
cdef void stop_fields(const char* base, Field* fields, int count, const char* name, uint32_t length) noexcept nogil

# None when `error` is none of FieldError
cdef str field_error_text(int error)
