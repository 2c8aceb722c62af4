"""Field lines: ``name ":" OWS value OWS CRLF``, in heads and in trailer sections (RFC 9112 section 5).

Strict where leniency has let two readers see two messages: the name is a token that ends at the colon, and a line that begins with white
space (obs-fold) is refused. Values are bytes: 0x80 to 0xFF may stand in them. Which control bytes may, the scan of the block has decided.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr

from soth_mitm._dataplane.wire.scan cimport (
    SOTH_END_BARE_CR,
    SOTH_END_BARE_LF,
    SOTH_NUMBER_OVERFLOW,
    soth_equals_fold,
    soth_equals_lower,
    soth_find_control,
    soth_find_not_token,
    soth_parse_decimal,
)


cdef int block_error(Py_ssize_t end) noexcept nogil:
    if end == SOTH_END_BARE_LF:
        return ERROR_BARE_LF
    return ERROR_BARE_CR if end == SOTH_END_BARE_CR else ERROR_CONTROL


cdef int parse_field_line(const char* base, uint32_t offset, uint32_t end, Field* field) noexcept nogil:
    cdef uint32_t name_len = <uint32_t>soth_find_not_token(base + offset, end - offset)
    cdef uint32_t value = offset + name_len
    cdef uint32_t stop
    if name_len == 0 or base[value] != c":":
        return _name_error(base + offset, name_len)
    value += 1
    while base[value] == c" " or base[value] == c"\t":
        value += 1
    # a CR that the scan has let pass is a line's end
    stop = <uint32_t>(<const char*>memchr(base + value, c"\r", end + 1 - value) - base)
    field.line = offset
    field.line_len = stop + 2 - offset
    field.name_len = name_len
    while stop > value and (base[stop - 1] == c" " or base[stop - 1] == c"\t"):
        stop -= 1
    field.value = value
    field.value_len = stop - value
    field.name = <uint8_t>field_name(base + offset, name_len)
    field.hop = 0
    field.sensitive = 0
    return ERROR_NONE


cdef int _name_error(const char* line, uint32_t name_len) noexcept nogil:
    """Say why the token at `line` is not a field name: the byte after it is no colon, or there is no token."""
    cdef char byte = line[name_len]
    if name_len == 0:
        if byte == c" " or byte == c"\t":
            return ERROR_FOLD
        return ERROR_NO_NAME if byte == c":" else ERROR_NAME
    if byte == c"\r":
        return ERROR_NO_COLON
    return ERROR_NAME_SPACE if byte == c" " or byte == c"\t" else ERROR_NAME


cdef inline int _if_equal(const char* name, const char* known, size_t length, int answer) noexcept nogil:
    return answer if soth_equals_lower(name, known, length) else FIELD_OTHER


cdef int field_name(const char* name, size_t length) noexcept nogil:
    # The length leaves one to three candidates, the first letter one; only that one is compared.
    cdef char first
    if length < 2 or length > 19:
        return FIELD_OTHER
    first = name[0] | 0x20
    if length == 2:
        return _if_equal(name, b"te", 2, FIELD_TE)
    elif length == 4:
        return _if_equal(name, b"host", 4, FIELD_HOST)
    elif length == 6:
        return _if_equal(name, b"expect", 6, FIELD_EXPECT)
    elif length == 7:
        if first == c"t":
            return _if_equal(name, b"trailer", 7, FIELD_TRAILER)
        return _if_equal(name, b"upgrade", 7, FIELD_UPGRADE)
    elif length == 10:
        if first == c"c":
            return _if_equal(name, b"connection", 10, FIELD_CONNECTION)
        return _if_equal(name, b"keep-alive", 10, FIELD_KEEP_ALIVE)
    elif length == 12:
        return _if_equal(name, b"content-type", 12, FIELD_CONTENT_TYPE)
    elif length == 13:
        return _if_equal(name, b"authorization", 13, FIELD_AUTHORIZATION)
    elif length == 14:
        if first == c"h":
            return _if_equal(name, b"http2-settings", 14, FIELD_HTTP2_SETTINGS)
        return _if_equal(name, b"content-length", 14, FIELD_CONTENT_LENGTH)
    elif length == 16:
        if first == c"c":
            return _if_equal(name, b"content-encoding", 16, FIELD_CONTENT_ENCODING)
        if first == c"p":
            return _if_equal(name, b"proxy-connection", 16, FIELD_PROXY_CONNECTION)
        return _if_equal(name, b"www-authenticate", 16, FIELD_WWW_AUTHENTICATE)
    elif length == 17:
        return _if_equal(name, b"transfer-encoding", 17, FIELD_TRANSFER_ENCODING)
    elif length == 18:
        return _if_equal(name, b"proxy-authenticate", 18, FIELD_PROXY_AUTHENTICATE)
    elif length == 19:
        return _if_equal(name, b"proxy-authorization", 19, FIELD_PROXY_AUTHORIZATION)
    return FIELD_OTHER


cdef int check_field(const char* name, size_t name_len, const char* value,
                     size_t value_len) noexcept nogil:
    if name_len == 0:
        return ERROR_NO_NAME
    if soth_find_not_token(name, name_len) != name_len:
        return ERROR_NAME
    return ERROR_NONE if soth_find_control(value, value_len) == value_len else ERROR_CONTROL


cdef inline bint _is_of_handshake(const char* name, size_t length) noexcept nogil:
    # of WebSocket (RFC 6455 section 4): what the proxy judges. The subprotocol is not among them.
    if length == 17:
        return soth_equals_lower(name, b"sec-websocket-key", 17)
    if length == 20:
        return soth_equals_lower(name, b"sec-websocket-accept", 20)
    if length == 21:
        return soth_equals_lower(name, b"sec-websocket-version", 21)
    return length == 24 and soth_equals_lower(name, b"sec-websocket-extensions", 24)


cdef bint is_own_field(const char* name, size_t length) noexcept nogil:
    cdef int known = field_name(name, length)
    if known == FIELD_OTHER:
        if length == 12:
            return soth_equals_lower(name, b"max-forwards", 12)
        return _is_of_handshake(name, length)
    return known in (
        FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_EXPECT, FIELD_HOST, FIELD_HTTP2_SETTINGS,
        FIELD_KEEP_ALIVE, FIELD_PROXY_AUTHORIZATION, FIELD_PROXY_CONNECTION, FIELD_TE,
        FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE)


cdef int trailer_rule(const char* base, const Field* field) noexcept nogil:
    if field.name in (FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_HOST, FIELD_KEEP_ALIVE,
                      FIELD_PROXY_CONNECTION, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING,
                      FIELD_UPGRADE):
        return TRAILER_REFUSED
    if field.name != FIELD_OTHER or _is_for_heads(base + field.line, field.name_len):
        return TRAILER_DROPPED
    return TRAILER_PASSES


cdef bint _is_for_heads(const char* name, uint32_t length) noexcept nogil:
    """Tell whether a field without a number controls a request or its answer, authenticates, or
    says what the content is. ETag, Server-Timing, digests and the like are made for trailers.
    """
    if length > 3 and soth_equals_lower(name, b"if-", 3):
        return True
    if length == 3:
        return soth_equals_lower(name, b"age", 3)
    elif length == 4:
        return soth_equals_lower(name, b"vary", 4)
    elif length == 5:
        return soth_equals_lower(name, b"range", 5)
    elif length == 6:
        return soth_equals_lower(name, b"cookie", 6) or soth_equals_lower(name, b"pragma", 6)
    elif length == 7:
        return soth_equals_lower(name, b"expires", 7)
    elif length == 8:
        return soth_equals_lower(name, b"location", 8)
    elif length == 10:
        return soth_equals_lower(name, b"set-cookie", 10)
    elif length == 11:
        return soth_equals_lower(name, b"retry-after", 11)
    elif length == 12:
        return soth_equals_lower(name, b"max-forwards", 12)
    elif length == 13:
        return (soth_equals_lower(name, b"cache-control", 13)
                or soth_equals_lower(name, b"content-range", 13))
    return False


cdef bytes passing_trailers(const char* lines, uint32_t length):
    cdef Field field
    cdef list kept = []
    cdef uint32_t at = 0
    while at < length:
        if parse_field_line(lines, at, length, &field):
            raise ValueError("trailers are field lines that were parsed before")
        at += field.line_len
        if trailer_rule(lines, &field) == TRAILER_PASSES:
            kept.append(PyBytes_FromStringAndSize(lines + field.line, field.line_len))
    return b"".join(kept)


cdef int read_content_length(const char* value, uint32_t length, int64_t* number, bint* repeated) noexcept nogil:
    cdef uint32_t begin, end, at = 0
    cdef int64_t element
    while True:
        begin = at
        while at < length and value[at] != c",":
            at += 1
        end = at
        _trim(value, &begin, &end)
        element = soth_parse_decimal(value + begin, end - begin)
        if element < 0:
            return ERROR_LENGTH_RANGE if element == SOTH_NUMBER_OVERFLOW else ERROR_LENGTH
        if number[0] >= 0:
            if element != number[0]:
                return ERROR_LENGTHS_DIFFER
            repeated[0] = True
        number[0] = element
        if at == length:
            return ERROR_NONE
        at += 1


cdef inline void _trim(const char* value, uint32_t* begin, uint32_t* end) noexcept nogil:
    while begin[0] < end[0] and (value[begin[0]] == c" " or value[begin[0]] == c"\t"):
        begin[0] += 1
    while begin[0] < end[0] and (value[end[0] - 1] == c" " or value[end[0] - 1] == c"\t"):
        end[0] -= 1


cdef int read_connection(const char* base, Field* fields, int count, ConnectionOptions* options) noexcept nogil:
    cdef const char* value
    cdef uint32_t at, begin, end, length
    cdef int i, found = 0
    options.close = options.keep_alive = options.upgrade = False
    for i in range(count):
        if fields[i].name != FIELD_CONNECTION:
            continue
        value = base + fields[i].value
        length = fields[i].value_len
        at = 0
        while at < length:
            begin = at
            while at < length and value[at] != c",":
                at += 1
            end = at
            at += 1
            _trim(value, &begin, &end)
            if begin == end:
                continue
            found += 1
            if found > MAX_OPTIONS:
                return ERROR_OPTIONS
            _take_option(base, fields, count, value + begin, end - begin, options)
    return ERROR_NONE


cdef void _take_option(const char* base, Field* fields, int count, const char* option, uint32_t length,
                       ConnectionOptions* options) noexcept nogil:
    if length == 5 and soth_equals_lower(option, b"close", 5):
        options.close = True
    elif length == 10 and soth_equals_lower(option, b"keep-alive", 10):
        options.keep_alive = True
    elif length == 7 and soth_equals_lower(option, b"upgrade", 7):
        options.upgrade = True
    elif _may_stop(field_name(option, length)):
        stop_fields(base, fields, count, option, length)


cdef void stop_fields(const char* base, Field* fields, int count, const char* name, uint32_t length) noexcept nogil:
    cdef int i
    for i in range(count):
        if fields[i].name_len == length and soth_equals_fold(base + fields[i].line, name, length):
            fields[i].hop = 1


cdef inline bint _may_stop(int name) noexcept nogil:
    # What says where a message ends, where it goes, what it is or how it is asked for is meant for every recipient, and RFC 9110 section
    # 7.6.1 forbids senders to name such a field. Obeying one who does would let him change a message after it has been decided upon.
    return name not in (FIELD_CONTENT_ENCODING, FIELD_CONTENT_LENGTH, FIELD_CONTENT_TYPE, FIELD_EXPECT, FIELD_HOST, FIELD_TRAILER,
                        FIELD_TRANSFER_ENCODING)


cdef str field_error_text(int error):
    if error == ERROR_BARE_LF:
        return "a line ends in LF without CR"
    if error == ERROR_BARE_CR:
        return "a CR is not followed by LF"
    if error == ERROR_CONTROL:
        return "a control byte stands in a line"
    if error == ERROR_FOLD:
        return "a field line begins with white space (folded lines are obsolete)"
    if error == ERROR_NO_NAME:
        return "a field line has no name before its colon"
    if error == ERROR_NAME:
        return "a field name holds a byte that may not stand in it"
    if error == ERROR_NAME_SPACE:
        return "white space stands between a field name and its colon"
    if error == ERROR_NO_COLON:
        return "a field line has no colon"
    if error == ERROR_LENGTH:
        return "Content-Length is not a decimal number"
    if error == ERROR_LENGTH_RANGE:
        return "Content-Length is too large a number"
    if error == ERROR_LENGTHS_DIFFER:
        return "Content-Length is there with different values"
    if error == ERROR_OPTIONS:
        return f"Connection names more than {MAX_OPTIONS} options"
    if error == ERROR_OWN_FIELD:
        return "the proxy sets this field itself"
    return None
