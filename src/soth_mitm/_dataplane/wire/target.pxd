# Methods and request targets (RFC 9112 sections 3.1 and 3.2).

from libc.stdint cimport uint8_t, uint32_t

from soth_mitm._dataplane.wire.fields cimport ERROR_FIELDS_END


cdef enum MethodName:
    METHOD_OTHER = 0
    METHOD_CONNECT
    METHOD_DELETE
    METHOD_GET
    METHOD_HEAD
    METHOD_OPTIONS
    METHOD_PATCH
    METHOD_POST
    METHOD_PUT
    METHOD_TRACE


# The form of a request target, RFC 9112 section 3.2
cdef enum TargetForm:
    TARGET_ORIGIN = 0
    TARGET_ABSOLUTE
    TARGET_AUTHORITY
    TARGET_ASTERISK


cdef struct Target:
    uint8_t form           # TargetForm
    bint https             # absolute-form whose scheme is https
    uint32_t authority     # offsets into the target; authority_len is 0 in origin- and asterisk-form
    uint32_t authority_len
    uint32_t path          # the whole target in origin- and asterisk-form; in absolute-form it may be empty or begin with `?`
    uint32_t path_len


# Numbered on from FieldError
cdef enum TargetError:
    ERROR_TARGET_FORM = ERROR_FIELDS_END
    ERROR_TARGET_SCHEME
    ERROR_TARGET_AUTHORITY
    ERROR_TARGET_USERINFO
    ERROR_TARGET_FRAGMENT
    ERROR_CONNECT_TARGET
    ERROR_TARGETS_END


# Methods are case-sensitive
cdef int method_name(const char* method, uint32_t length) noexcept nogil
# Is the method that `method_name` calls `name` known to do no harm twice?
cdef bint is_idempotent(int name, const char* method, uint32_t length) noexcept nogil

# 0 and `parts` filled in, or a TargetError. `target` is visible ASCII and not empty.
cdef int parse_target(const char* target, uint32_t length, int method, Target* parts) noexcept nogil

# Do two valid authorities name the same host and port, case and a default port apart?
cdef bint same_authority(const char* one, size_t one_len, const char* other, size_t other_len, unsigned int default_port) noexcept nogil

# None when `error` is none of TargetError
cdef str target_error_text(int error)
