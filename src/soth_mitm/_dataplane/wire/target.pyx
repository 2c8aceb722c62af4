"""Methods and request targets (RFC 9112 sections 3.1 and 3.2): which of the four forms a target has, and where its parts lie.

The target comes as visible ASCII; the head's parser saw to that. A fragment is refused in every form, user information in absolute-form: a
policy that reads one host or path and an origin that reads another would not be a policy.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp, strchr

from soth_mitm._dataplane.wire.scan cimport soth_equals_fold, soth_equals_lower, soth_parse_authority


cdef int method_name(const char* method, uint32_t length) noexcept nogil:
    if length == 3:
        if memcmp(method, b"GET", 3) == 0:
            return METHOD_GET
        return METHOD_PUT if memcmp(method, b"PUT", 3) == 0 else METHOD_OTHER
    if length == 4:
        if memcmp(method, b"POST", 4) == 0:
            return METHOD_POST
        return METHOD_HEAD if memcmp(method, b"HEAD", 4) == 0 else METHOD_OTHER
    if length == 5:
        if memcmp(method, b"PATCH", 5) == 0:
            return METHOD_PATCH
        return METHOD_TRACE if memcmp(method, b"TRACE", 5) == 0 else METHOD_OTHER
    if length == 6:
        return METHOD_DELETE if memcmp(method, b"DELETE", 6) == 0 else METHOD_OTHER
    if length == 7:
        if memcmp(method, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        return METHOD_CONNECT if memcmp(method, b"CONNECT", 7) == 0 else METHOD_OTHER
    return METHOD_OTHER


cdef bint is_idempotent(int name, const char* method, uint32_t length) noexcept nogil:
    # of the methods without a name of ours, those that IANA's registry of HTTP methods calls idempotent (RFC 9110 section 16.1.1)
    cdef const char* known = (
        b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE "
        b"ORDERPATCH PROPFIND PROPPATCH QUERY REBIND REPORT SEARCH UNBIND UNCHECKOUT UNLINK UPDATE UPDATEREDIRECTREF VERSION-CONTROL "
    )
    cdef const char* end
    if name != METHOD_OTHER:
        return name in (METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_PUT, METHOD_DELETE, METHOD_TRACE)
    while known[0]:
        end = strchr(known, c" ")
        if end - known == length and memcmp(known, method, length) == 0:
            return True
        known = end + 1
    return False


cdef int parse_target(const char* target, uint32_t length, int method, Target* parts) noexcept nogil:
    cdef uint32_t at, stop
    cdef unsigned int port
    parts.form = TARGET_ORIGIN
    parts.https = False
    parts.authority = parts.authority_len = parts.path = 0
    parts.path_len = length
    if method == METHOD_CONNECT:
        parts.form = TARGET_AUTHORITY
        parts.authority_len = length
        parts.path_len = 0
        return 0 if soth_parse_authority(target, length, &port) and port else ERROR_CONNECT_TARGET
    if memchr(target, c"#", length) != NULL:
        return ERROR_TARGET_FRAGMENT
    if target[0] == c"/":
        return 0
    if length == 1 and target[0] == c"*":
        parts.form = TARGET_ASTERISK
        return 0 if method == METHOD_OPTIONS else ERROR_TARGET_FORM
    if length >= 7 and soth_equals_lower(target, b"http://", 7):
        at = 7
    elif length >= 8 and soth_equals_lower(target, b"https://", 8):
        at = 8
        parts.https = True
    else:
        return ERROR_TARGET_FORM if soth_parse_authority(target, length, &port) else ERROR_TARGET_SCHEME
    stop = at
    while stop < length and target[stop] != c"/" and target[stop] != c"?":
        stop += 1
    parts.form = TARGET_ABSOLUTE
    parts.authority = at
    parts.authority_len = stop - at
    parts.path = stop
    parts.path_len = length - stop
    if memchr(target + at, c"@", stop - at) != NULL:
        return ERROR_TARGET_USERINFO
    return 0 if soth_parse_authority(target + at, stop - at, &port) else ERROR_TARGET_AUTHORITY


cdef bint same_authority(const char* one, size_t one_len, const char* other, size_t other_len, unsigned int default_port) noexcept nogil:
    cdef unsigned int one_port, other_port
    cdef size_t host_len = soth_parse_authority(one, one_len, &one_port)
    if soth_parse_authority(other, other_len, &other_port) != host_len or not soth_equals_fold(one, other, host_len):
        return False
    return (one_port or default_port) == (other_port or default_port)


cdef str target_error_text(int error):
    if error == ERROR_TARGET_FORM:
        return "this form of request target does not go with this method"
    if error == ERROR_TARGET_SCHEME:
        return "the request target is no path, and no http or https URI"
    if error == ERROR_TARGET_AUTHORITY:
        return "the host or port in the request target is not valid"
    if error == ERROR_TARGET_USERINFO:
        return "the request target carries user information"
    if error == ERROR_TARGET_FRAGMENT:
        return "the request target carries a fragment"
    if error == ERROR_CONNECT_TARGET:
        return "the target of CONNECT is not host:port"
    return None
