"""Messages of HTTP/2: from field lists to heads and back (RFC 9113 section 8).

Strict on the way in, since every fault could become another message on the other side: names are tokens
in lower case, values hold no control bytes, each pseudo-header stands once and before all fields, and
`:authority` and Host name one host by the same rules as in HTTP/1. A fault is never mended; white space
around a value is, as everywhere in HTTP, not part of it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from http import HTTPStatus

from soth_mitm._dataplane.wire.forwards cimport forwards_left
from soth_mitm._dataplane.http2.hpack_decoder cimport FieldList, HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder cimport HpackEncoder
from soth_mitm._dataplane.http2.octets cimport Octets
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of
from soth_mitm._dataplane.wire.fields cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_EXPECT, FIELD_HOST, FIELD_HTTP2_SETTINGS,
    FIELD_KEEP_ALIVE, FIELD_OTHER, FIELD_PROXY_AUTHORIZATION, FIELD_PROXY_CONNECTION, FIELD_TE,
    FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, TRAILER_DROPPED, TRAILER_PASSES, TRAILER_REFUSED,
    USUAL_FIELDS, Field, parse_field_line, read_content_length, trailer_rule,
)
from soth_mitm._dataplane.wire.head cimport HTTP_2, Head
from soth_mitm._dataplane.wire.head_edits cimport FieldEdit, HeadEdits
from soth_mitm._dataplane.wire.scan cimport (
    soth_equals_lower, soth_find_control, soth_find_not_token, soth_find_not_visible, soth_parse_authority,
    soth_parse_decimal,
)
from soth_mitm._dataplane.wire.target cimport (
    METHOD_CONNECT, TARGET_ABSOLUTE, TARGET_ASTERISK, TARGET_AUTHORITY, TARGET_ORIGIN, Target, method_name,
    parse_target, same_authority,
)

cdef extern from "scan.h" nogil:
    size_t soth_find_break(const char* p, size_t n) noexcept
    bint soth_is_lower_token(const char* p, size_t n) noexcept

cdef enum:
    # bits of the pseudo-headers that were there
    HAS_METHOD = 1
    HAS_SCHEME = 2
    HAS_PATH = 4
    HAS_AUTHORITY = 8
    HAS_PROTOCOL = 16
    HAS_STATUS = 32

    LINE_OVERHEAD = 4          # ": " and CRLF
    VERSION_LENGTH = 8         # "HTTP/1.1"
    MOST_DIGITS = 20           # of a number of 64 bits

FAULT_TEXTS = {
    MESSAGE_NAME: "a field name is no token in lower case",
    MESSAGE_VALUE: "a field value holds a byte that may not stand in it",
    MESSAGE_PSEUDO_LATE: "a pseudo-header stands behind a field",
    MESSAGE_PSEUDO_TWICE: "a pseudo-header is there twice",
    MESSAGE_PSEUDO_UNKNOWN: "a pseudo-header does not belong to this message",
    MESSAGE_PSEUDO_SET: "the pseudo-headers are not those that the method asks for",
    MESSAGE_METHOD: "the method is not a token",
    MESSAGE_SCHEME: "the scheme is neither http nor https",
    MESSAGE_PATH: "the path does not begin with `/`, or holds a byte that may not stand in it",
    MESSAGE_AUTHORITY: "the authority is not a valid host and port",
    MESSAGE_HOST: "Host is there twice, or names another host than :authority",
    MESSAGE_PROTOCOL: "extended CONNECT was not offered",
    MESSAGE_STATUS: "the status is not a number from 100 to 999, or 101",
    MESSAGE_CONNECTION: "a field concerns one connection only",
    MESSAGE_TE: "TE is something else than `trailers`, or stands in a response",
    MESSAGE_LENGTH: "Content-Length is not one number",
    MESSAGE_TRAILER: "a pseudo-header stands in the trailers",
    MESSAGE_TRAILER_NAME: "a field stands in the trailers that may only stand in the head",
    MESSAGE_TOO_MANY: "there are too many fields",
}


def _reason(status):
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


REASONS = tuple([_reason(status) for status in range(600)])


# ---- in --------------------------------------------------------------------------------------------------

# What one pass over a field list finds out
cdef struct Reading:
    int pseudos                # HAS_ bits
    View method
    View scheme
    View path
    View authority
    View protocol
    View status
    int begin                  # the first field that is no pseudo-header
    int host                   # index of the Host field, -1: none
    int cookie                 # of the first cookie, -1: none
    int cookies
    bint cookie_sensitive
    Py_ssize_t size            # of all lines that the head will have, but for the host and the start line
    int64_t content_length
    bint length_repeated
    bint expect_continue
    bint has_hop


cdef inline bint is_cookie(const Field* field, const char* base) noexcept nogil:
    return field.name_len == 6 and memcmp(base + field.line, b"cookie", 6) == 0


cdef inline void trim(Field* field, const char* base) noexcept nogil:
    while field.value_len and (base[field.value] == c" " or base[field.value] == c"\t"):
        field.value += 1
        field.value_len -= 1
    while field.value_len and (base[field.value + field.value_len - 1] == c" "
                               or base[field.value + field.value_len - 1] == c"\t"):
        field.value_len -= 1


cdef int _read_pseudo(Reading* reading, const Field* field, const char* base, bint is_request) noexcept nogil:
    cdef const char* name = base + field.line
    cdef View value = view_of(base + field.value, field.value_len)
    cdef int bit = 0
    if not is_request:
        if field.name_len == 7 and memcmp(name, b":status", 7) == 0:
            bit = HAS_STATUS
            reading.status = value
    elif field.name_len == 7:
        if memcmp(name, b":method", 7) == 0:
            bit = HAS_METHOD
            reading.method = value
        elif memcmp(name, b":scheme", 7) == 0:
            bit = HAS_SCHEME
            reading.scheme = value
    elif field.name_len == 5:
        if memcmp(name, b":path", 5) == 0:
            bit = HAS_PATH
            reading.path = value
    elif field.name_len == 10:
        if memcmp(name, b":authority", 10) == 0:
            bit = HAS_AUTHORITY
            reading.authority = value
    elif field.name_len == 9:
        if memcmp(name, b":protocol", 9) == 0:
            bit = HAS_PROTOCOL
            reading.protocol = value
    if bit == 0:
        return MESSAGE_PSEUDO_UNKNOWN
    if reading.pseudos & bit:
        return MESSAGE_PSEUDO_TWICE
    reading.pseudos |= bit
    return MESSAGE_OK


cdef int _note_field(Reading* reading, Field* field, const char* base, int index, bint is_request) noexcept nogil:
    """Check what a known field says."""
    cdef const char* value = base + field.value
    if field.name in (FIELD_CONNECTION, FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE):
        return MESSAGE_CONNECTION
    if field.name == FIELD_TE:
        # RFC 9113 section 8.2.2: in a request it may stand, in a response it concerns the connection
        if not is_request or field.value_len != 8 or not soth_equals_lower(value, b"trailers", 8):
            return MESSAGE_TE
        field.hop = 1
        reading.has_hop = True
    elif field.name == FIELD_PROXY_AUTHORIZATION or field.name == FIELD_HTTP2_SETTINGS:
        # the latter is a field of HTTP/1 (RFC 7540 section 3.2.1), and an upstream could act upon it
        field.hop = 1
        reading.has_hop = True
    elif field.name == FIELD_CONTENT_LENGTH:
        if read_content_length(value, field.value_len, &reading.content_length, &reading.length_repeated):
            return MESSAGE_LENGTH
    elif field.name == FIELD_EXPECT:
        if field.value_len == 12 and soth_equals_lower(value, b"100-continue", 12):
            reading.expect_continue = True
    elif field.name == FIELD_HOST and is_request:
        if reading.host >= 0:
            return MESSAGE_HOST
        reading.host = index
    return MESSAGE_OK


cdef int _read_fields(FieldList fields, Reading* reading, bint is_request, bint is_trailers) noexcept nogil:
    """Look at every field once; a MessageFault."""
    cdef const char* base = fields.lines.data
    cdef Field* field
    cdef int i, fault
    reading.pseudos = reading.cookies = 0
    reading.begin = -1
    reading.host = reading.cookie = -1
    reading.cookie_sensitive = reading.length_repeated = reading.expect_continue = reading.has_hop = False
    reading.size = 0
    reading.content_length = -1
    for i in range(fields.count):
        field = &fields.fields[i]
        # control bytes pass in a response, as they do in HTTP/1, but for those that end a line
        if is_request:
            if soth_find_control(base + field.value, field.value_len) != field.value_len:
                return MESSAGE_VALUE
        elif soth_find_break(base + field.value, field.value_len) != field.value_len:
            return MESSAGE_VALUE
        if field.name_len and base[field.line] == c":":
            if is_trailers:
                return MESSAGE_TRAILER
            if reading.begin >= 0:
                return MESSAGE_PSEUDO_LATE
            fault = _read_pseudo(reading, field, base, is_request)
            if fault:
                return fault
            continue
        # pseudo-headers are taken as they came: white space makes another path or method of them
        trim(field, base)
        if reading.begin < 0:
            reading.begin = i
        if not soth_is_lower_token(base + field.line, field.name_len):
            return MESSAGE_NAME
        if field.name != FIELD_OTHER:
            fault = _note_field(reading, field, base, i, is_request)
            if fault:
                return fault
            if i == reading.host:
                continue
        elif is_request and is_cookie(field, base):
            reading.cookies += 1
            reading.cookie_sensitive = reading.cookie_sensitive or field.sensitive
            if reading.cookie >= 0:
                # "; " and the value behind those before it
                reading.size += 2 + <Py_ssize_t>field.value_len
                continue
            reading.cookie = i
        reading.size += <Py_ssize_t>field.name_len + field.value_len + LINE_OVERHEAD
    if reading.begin < 0:
        reading.begin = fields.count
    return MESSAGE_OK


cdef int _check_request(Reading* reading, const char* base, FieldList fields, bint may_extend, Target* target,
                        int* method) noexcept nogil:
    """Check what only all pseudo-headers together can tell, and find authority and target; a MessageFault."""
    cdef int pseudos = reading.pseudos & ~HAS_AUTHORITY
    cdef unsigned int port
    cdef Field* host
    if not pseudos & HAS_METHOD:
        return MESSAGE_PSEUDO_SET
    if reading.method.len == 0 or soth_find_not_token(reading.method.ptr, reading.method.len) != <size_t>reading.method.len:
        return MESSAGE_METHOD
    method[0] = method_name(reading.method.ptr, <uint32_t>reading.method.len)
    if pseudos & HAS_PROTOCOL:
        if not may_extend or soth_find_not_token(reading.protocol.ptr, reading.protocol.len) != <size_t>reading.protocol.len:
            return MESSAGE_PROTOCOL
        if method[0] != METHOD_CONNECT or not reading.pseudos & HAS_AUTHORITY or reading.protocol.len == 0:
            return MESSAGE_PSEUDO_SET
        pseudos &= ~HAS_PROTOCOL
    elif method[0] == METHOD_CONNECT:
        if reading.pseudos != HAS_METHOD | HAS_AUTHORITY:
            return MESSAGE_PSEUDO_SET
        pseudos = HAS_METHOD | HAS_SCHEME | HAS_PATH
    if pseudos != HAS_METHOD | HAS_SCHEME | HAS_PATH:
        return MESSAGE_PSEUDO_SET
    if reading.pseudos & HAS_SCHEME:
        if not (reading.scheme.len == 5 and soth_equals_lower(reading.scheme.ptr, b"https", 5)
                or reading.scheme.len == 4 and soth_equals_lower(reading.scheme.ptr, b"http", 4)):
            return MESSAGE_SCHEME
    if reading.pseudos & HAS_AUTHORITY:
        if not soth_parse_authority(reading.authority.ptr, reading.authority.len, &port):
            return MESSAGE_AUTHORITY
    if reading.host >= 0:
        host = &fields.fields[reading.host]
        if not soth_parse_authority(base + host.value, host.value_len, &port):
            return MESSAGE_HOST
        if not reading.pseudos & HAS_AUTHORITY:
            reading.authority = view_of(base + host.value, host.value_len)
        elif not same_authority(reading.authority.ptr, reading.authority.len, base + host.value, host.value_len,
                                80 if reading.pseudos & HAS_SCHEME and reading.scheme.len == 4 else 443):
            return MESSAGE_HOST
    elif not reading.pseudos & HAS_AUTHORITY:
        return MESSAGE_AUTHORITY
    if not reading.pseudos & HAS_PATH:
        # CONNECT: its target is the authority
        reading.path = reading.authority
        return MESSAGE_OK if parse_target(reading.path.ptr, <uint32_t>reading.path.len, METHOD_CONNECT, target) == 0 else MESSAGE_AUTHORITY
    if reading.path.len == 0 or soth_find_not_visible(reading.path.ptr, reading.path.len) != <size_t>reading.path.len:
        return MESSAGE_PATH
    # the path of an extended CONNECT is one like that of any other method
    if parse_target(reading.path.ptr, <uint32_t>reading.path.len, 0 if method[0] == METHOD_CONNECT else method[0], target):
        return MESSAGE_PATH
    return MESSAGE_OK if target.form == TARGET_ORIGIN or target.form == TARGET_ASTERISK else MESSAGE_PATH


cdef inline char* _copy(char* at, const char* data, Py_ssize_t length) noexcept nogil:
    memcpy(at, data, length)
    return at + length


cdef char* _write_line(Head head, const char* begin, char* at, const char* name, uint32_t name_len, View value,
                       const Field* model) noexcept nogil:
    """Write a field line at `at`, in the bytes that begin at `begin`, and enter it into the head's table."""
    cdef Field* field = &head.fields[head.count]
    head.count += 1
    field[0] = model[0]
    field.line = <uint32_t>(at - begin)
    field.name_len = name_len
    at = _copy(at, name, name_len)
    at[0] = c":"
    at[1] = c" "
    field.value = field.line + name_len + 2
    field.value_len = <uint32_t>value.len
    at = _copy(at + 2, value.ptr, value.len)
    at[0] = c"\r"
    at[1] = c"\n"
    field.line_len = name_len + field.value_len + LINE_OVERHEAD
    return at + 2


cdef char* _write_cookies(Head head, const char* begin, char* at, FieldList fields, const Reading* reading) noexcept nogil:
    """Write the crumbs as one field."""
    cdef const char* base = fields.lines.data
    cdef const Field* crumb = &fields.fields[reading.cookie]
    cdef Field* field = &head.fields[head.count]
    cdef int i
    at = _write_line(head, begin, at, b"cookie", 6, view_of(base + crumb.value, crumb.value_len), crumb) - 2
    for i in range(reading.cookie + 1, fields.count):
        crumb = &fields.fields[i]
        if is_cookie(crumb, base):
            at[0] = c";"
            at[1] = c" "
            at = _copy(at + 2, base + crumb.value, crumb.value_len)
    at[0] = c"\r"
    at[1] = c"\n"
    field.value_len = <uint32_t>(at - begin) - field.value
    field.line_len = <uint32_t>(at - begin) + 2 - field.line
    field.sensitive = reading.cookie_sensitive
    return at + 2


cdef int _fill(Head head, FieldList fields, const Reading* reading, bytes raw, char* at) except -1:
    """Write the fields to `at`, in `raw`, and say where each lies."""
    cdef const char* base = fields.lines.data
    cdef const char* begin = PyBytes_AS_STRING(raw)
    cdef Field host
    cdef Field* field
    cdef int i
    if head.reserve(fields.count + 1) < 0:
        raise MemoryError()
    if head.is_request:
        host.name = FIELD_HOST
        host.hop = host.sensitive = 0
        head.host = 0
        at = _write_line(head, begin, at, b"host", 4, reading.authority, &host)
    for i in range(reading.begin, fields.count):
        field = &fields.fields[i]
        if i == reading.host:
            continue
        if reading.cookies > 1 and is_cookie(field, base):
            if i == reading.cookie:
                at = _write_cookies(head, begin, at, fields, reading)
            continue
        at = _write_line(head, begin, at, base + field.line, field.name_len,
                         view_of(base + field.value, field.value_len), field)
    at[0] = c"\r"
    at[1] = c"\n"
    head.raw = raw
    head.version = HTTP_2
    head.content_length = reading.content_length
    head.length_repeated = reading.length_repeated
    head.expect_continue = reading.expect_continue
    head.has_hop = reading.has_hop
    return 0


cdef inline int _field_count(FieldList fields, const Reading* reading) noexcept nogil:
    """How many fields the head will have, Host included."""
    cdef int count = fields.count - reading.begin
    if reading.cookies > 1:
        count -= reading.cookies - 1
    return count if reading.host >= 0 else count + 1


cdef int read_request(FieldList fields, Head head, bint may_extend, int most_fields, RequestFacts* facts) except -1:
    cdef Reading reading
    cdef Target target
    cdef int method = 0, fault = _read_fields(fields, &reading, True, False)
    cdef bytes raw
    cdef char* at
    if fault == MESSAGE_OK:
        fault = _check_request(&reading, fields.lines.data, fields, may_extend, &target, &method)
    if fault:
        return fault
    if _field_count(fields, &reading) > most_fields:
        return MESSAGE_TOO_MANY
    raw = PyBytes_FromStringAndSize(NULL, reading.method.len + 1 + reading.path.len + 1 + VERSION_LENGTH + 2
                                    + 4 + LINE_OVERHEAD + reading.authority.len + reading.size + 2)
    at = _copy(PyBytes_AS_STRING(raw), reading.method.ptr, reading.method.len)
    at[0] = c" "
    at = _copy(at + 1, reading.path.ptr, reading.path.len)
    at = _copy(at, b" HTTP/1.1\r\n", VERSION_LENGTH + 3)
    head.is_request = True
    head.method = <uint8_t>method
    head.method_len = <uint32_t>reading.method.len
    head.target = head.method_len + 1
    head.target_len = <uint32_t>reading.path.len
    head.form = target.form
    head.https = False
    head.authority = head.target + target.authority
    head.authority_len = target.authority_len
    head.path = head.target + target.path
    head.path_len = target.path_len
    facts.https = not (reading.pseudos & HAS_SCHEME and reading.scheme.len == 4)
    facts.protocol = reading.protocol if reading.pseudos & HAS_PROTOCOL else view_of(NULL, 0)
    _fill(head, fields, &reading, raw, at)
    return MESSAGE_OK


cdef int read_response(FieldList fields, Head head, int most_fields) except -1:
    cdef Reading reading
    cdef int fault = _read_fields(fields, &reading, False, False)
    cdef int64_t status
    cdef bytes raw, reason
    cdef char* at
    if fault:
        return fault
    if reading.pseudos != HAS_STATUS:
        return MESSAGE_PSEUDO_SET
    status = soth_parse_decimal(reading.status.ptr, reading.status.len) if reading.status.len == 3 else -1
    if status < 100 or status == 101:
        return MESSAGE_STATUS
    if fields.count - reading.begin > most_fields:
        return MESSAGE_TOO_MANY
    reason = REASONS[status] if status < 600 else b""
    raw = PyBytes_FromStringAndSize(NULL, VERSION_LENGTH + 5 + len(reason) + 2 + reading.size + 2)
    at = _copy(PyBytes_AS_STRING(raw), b"HTTP/1.1 ", VERSION_LENGTH + 1)
    at = _copy(at, reading.status.ptr, 3)
    at[0] = c" "
    at = _copy(at + 1, PyBytes_AS_STRING(reason), len(reason))
    at[0] = c"\r"
    at[1] = c"\n"
    head.is_request = False
    head.status = <unsigned short>status
    head.reason = VERSION_LENGTH + 5
    head.reason_len = <uint32_t>len(reason)
    _fill(head, fields, &reading, raw, at + 2)
    return MESSAGE_OK


cdef int read_trailers(FieldList fields, bint is_request, int most_fields, Octets lines, int* dropped) except -1:
    cdef Reading reading
    cdef const char* base = fields.lines.data
    cdef int i, rule, fault = _read_fields(fields, &reading, is_request, True)
    cdef Field* field
    cdef char* at
    dropped[0] = 0
    if fault:
        return fault
    if fields.count > most_fields:
        return MESSAGE_TOO_MANY
    for i in range(fields.count):
        field = &fields.fields[i]
        rule = trailer_rule(base, field)
        if rule == TRAILER_REFUSED:
            return MESSAGE_TRAILER_NAME
        if rule == TRAILER_DROPPED:
            dropped[0] += 1
            continue
        lines.reserve(<Py_ssize_t>field.name_len + field.value_len + LINE_OVERHEAD)
        at = _copy(lines.data + lines.size, base + field.line, field.name_len)
        at[0] = c":"
        at[1] = c" "
        at = _copy(at + 2, base + field.value, field.value_len)
        at[0] = c"\r"
        at[1] = c"\n"
        lines.size = at + 2 - lines.data
    return MESSAGE_OK


# ---- out -------------------------------------------------------------------------------------------------

cdef inline bint _goes_on(const Field* field, bint is_request) noexcept nogil:
    """Tell whether a field leaves as it is. TE has a rule of its own; Host of a request became `:authority`."""
    if field.name == FIELD_OTHER:
        return not field.hop
    if field.name == FIELD_HOST:
        # in a response it means nothing
        return not is_request and not field.hop
    return not field.hop and field.name not in (
        FIELD_CONNECTION, FIELD_HTTP2_SETTINGS, FIELD_KEEP_ALIVE, FIELD_PROXY_AUTHORIZATION,
        FIELD_PROXY_CONNECTION, FIELD_TE, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE)


cdef int _write_field(HpackEncoder encoder, Octets out, Octets scratch, const char* name, uint32_t name_len,
                      const char* value, uint32_t value_len, bint sensitive) except -1:
    """Write one field whose name may have upper-case letters."""
    cdef uint32_t i
    for i in range(name_len):
        if c"A" <= name[i] <= c"Z":
            break
    else:
        return encoder.encode(out, name, name_len, value, value_len, sensitive)
    scratch.clear()
    scratch.append(name, name_len)
    for i in range(name_len):
        if c"A" <= name[i] <= c"Z":
            scratch.data[i] = name[i] + 32
    return encoder.encode(out, scratch.data, name_len, value, value_len, sensitive)


cdef int _write_cookie(HpackEncoder encoder, Octets out, const char* value, uint32_t length, bint sensitive) except -1:
    """Write a cookie as its crumbs, so that each is in the table by itself."""
    cdef const char* end = value + length
    cdef const char* stop
    while True:
        stop = <const char*>memchr(value, c";", end - value)
        while stop != NULL and (stop + 1 == end or stop[1] != c" "):
            stop = <const char*>memchr(stop + 1, c";", end - stop - 1)
        if stop == NULL:
            return encoder.encode(out, b"cookie", 6, value, <uint32_t>(end - value), sensitive)
        encoder.encode(out, b"cookie", 6, value, <uint32_t>(stop - value), sensitive)
        value = stop + 2


cdef int _write_number(HpackEncoder encoder, Octets out, const char* name, uint32_t name_len, int64_t number) except -1:
    """Write a field whose value is a number, which is not negative."""
    cdef char digits[MOST_DIGITS]
    cdef int at = MOST_DIGITS
    while True:
        at -= 1
        digits[at] = <char>(c"0" + number % 10)
        number //= 10
        if number == 0:
            return encoder.encode(out, name, name_len, digits + at, <uint32_t>(MOST_DIGITS - at), False)


cdef int _write_edited_line(HpackEncoder encoder, Octets out, Octets scratch, bytes line, bint is_request) except -1:
    """Write a field line, CRLF included, unless it is None or may not leave."""
    cdef const char* base
    cdef Field field
    if line is None:
        return 0
    base = PyBytes_AS_STRING(line)
    if parse_field_line(base, 0, <uint32_t>len(line), &field):
        raise ValueError("an edit is a field line that was checked before")
    if not _goes_on(&field, is_request):
        return 0
    if field.name_len == 6 and soth_equals_lower(base, b"cookie", 6):
        return _write_cookie(encoder, out, base + field.value, field.value_len, False)
    return _write_field(encoder, out, scratch, base, field.name_len, base + field.value, field.value_len, False)


cdef int _write_edit(HpackEncoder encoder, Octets out, Octets scratch, FieldEdit edit, bint is_request) except -1:
    if edit.is_written:
        return 0
    edit.is_written = True
    return _write_edited_line(encoder, out, scratch, edit.line, is_request)


cdef int _write_fields(HpackEncoder encoder, Octets out, Octets scratch, Head head, int64_t forwards, bint no_length,
                       HeadEdits edits) except -1:
    cdef const char* base = PyBytes_AS_STRING(head.raw)
    cdef FieldEdit edit
    cdef Field* field
    cdef bint has_length = no_length
    cdef int i
    if edits is not None:
        edits.begin()
    for i in range(head.count):
        field = &head.fields[i]
        if edits is not None:
            edit = edits.find(base + field.line, field.name_len)
            if edit is not None:
                _write_edit(encoder, out, scratch, edit, head.is_request)
                continue
        if not _goes_on(field, head.is_request):
            if field.name == FIELD_TE and head.is_request and _has_trailers(base + field.value, field.value_len):
                encoder.encode(out, b"te", 2, b"trailers", 8, False)
            continue
        if field.name == FIELD_CONTENT_LENGTH:
            if not has_length:
                _write_number(encoder, out, b"content-length", 14, head.content_length)
            has_length = True
        elif field.name_len == 6 and head.is_request and soth_equals_lower(base + field.line, b"cookie", 6):
            _write_cookie(encoder, out, base + field.value, field.value_len, field.sensitive)
        elif forwards > 0 and field.name_len == 12 and soth_equals_lower(base + field.line, b"max-forwards", 12):
            _write_number(encoder, out, b"max-forwards", 12, forwards - 1)
        else:
            _write_field(encoder, out, scratch, base + field.line, field.name_len, base + field.value, field.value_len,
                         field.sensitive)
    if edits is not None:
        for edit in edits.edits:
            _write_edit(encoder, out, scratch, edit, head.is_request)
        for _, line in edits.appended:
            _write_edited_line(encoder, out, scratch, line, head.is_request)
    return 0


cdef bint _has_trailers(const char* value, uint32_t length) noexcept nogil:
    """Tell whether `trailers` is an element of a TE field (RFC 9110 section 10.1.4)."""
    cdef uint32_t at = 0, begin, end
    while at < length:
        begin = at
        while at < length and value[at] != c",":
            at += 1
        end = at
        at += 1
        while begin < end and (value[begin] == c" " or value[begin] == c"\t"):
            begin += 1
        while begin < end and (value[end - 1] == c" " or value[end - 1] == c"\t"):
            end -= 1
        if end - begin == 8 and soth_equals_lower(value + begin, b"trailers", 8):
            return True
    return False


cdef View _edited_host(HeadEdits edits) noexcept:
    """The value of an edit of Host; len 0: there is none."""
    cdef FieldEdit edit = edits.find(b"host", 4) if edits is not None else None
    cdef Field field
    if edit is None or edit.line is None or parse_field_line(PyBytes_AS_STRING(edit.line), 0, <uint32_t>len(edit.line), &field):
        return view_of(NULL, 0)
    return view_of(PyBytes_AS_STRING(edit.line) + field.value, field.value_len)


cdef int write_request(HpackEncoder encoder, Octets out, Octets scratch, Head head, HeadEdits edits, bint https,
                       View authority, View protocol) except -1:
    cdef const char* base = PyBytes_AS_STRING(head.raw)
    cdef bytes target
    cdef View path = view_of(NULL, 0)
    cdef View edited = _edited_host(edits)
    if edited.len:
        authority = edited
    elif head.authority_len:
        authority = view_of(base + head.authority, head.authority_len)
    elif head.host >= 0:
        authority = view_of(base + head.fields[head.host].value, head.fields[head.host].value_len)
    encoder.begin(out)
    # m, a, s, p: what browsers send
    if protocol.len:
        encoder.encode(out, b":method", 7, b"CONNECT", 7, False)
    else:
        encoder.encode(out, b":method", 7, base, head.method_len, False)
    encoder.encode(out, b":authority", 10, authority.ptr, <uint32_t>authority.len, False)
    if head.form != TARGET_AUTHORITY:
        encoder.encode(out, b":scheme", 7, b"https" if https else b"http", 5 if https else 4, False)
        if head.form == TARGET_ABSOLUTE:
            target = head.origin_target()
            path = view_of(PyBytes_AS_STRING(target), len(target))
        else:
            path = view_of(base + head.target, head.target_len)
        encoder.encode(out, b":path", 5, path.ptr, <uint32_t>path.len, head.target_sensitive)
    if protocol.len:
        encoder.encode(out, b":protocol", 9, protocol.ptr, <uint32_t>protocol.len, False)
    return _write_fields(encoder, out, scratch, head, forwards_left(head), False, edits)


cdef int write_response(HpackEncoder encoder, Octets out, Octets scratch, Head head, HeadEdits edits) except -1:
    encoder.begin(out)
    _write_number(encoder, out, b":status", 7, head.status)
    # RFC 9110 section 8.6: these have no length
    return _write_fields(encoder, out, scratch, head, -1, head.status < 200 or head.status == 204,
                         edits)


cdef int write_trailers(HpackEncoder encoder, Octets out, Octets scratch, bytes lines) except -1:
    cdef const char* base = PyBytes_AS_STRING(lines)
    cdef uint32_t at = 0, end = <uint32_t>len(lines)
    cdef Field field
    encoder.begin(out)
    while at < end:
        if parse_field_line(base, at, end, &field):
            raise ValueError("trailers are field lines that were parsed before")
        at += field.line_len
        if trailer_rule(base, &field) == TRAILER_PASSES:
            _write_field(encoder, out, scratch, base + field.line, field.name_len, base + field.value, field.value_len, False)
    return 0


cdef int write_own_response(HpackEncoder encoder, Octets out, Octets scratch, int status, object headers,
                            Py_ssize_t length) except -1:
    cdef bytes name, value
    encoder.begin(out)
    _write_number(encoder, out, b":status", 7, status)
    for name, value in headers:
        _write_field(encoder, out, scratch, PyBytes_AS_STRING(name), <uint32_t>len(name), PyBytes_AS_STRING(value),
                     <uint32_t>len(value), False)
    return _write_number(encoder, out, b"content-length", 14, length) if length >= 0 else 0


cdef str message_fault_text(int fault):
    return FAULT_TEXTS[fault]


# ---- for tests and tools ---------------------------------------------------------------------------------

cdef FieldList _list_of(fields):
    """Make a field list of (name, value, never indexed) triples, as a decoder would."""
    cdef FieldList out = FieldList()
    cdef bytes block = HpackEncoder().encode_block(fields)
    out.clear(1 << 30)
    if HpackDecoder().decode(block, len(block), out):
        raise AssertionError("what was encoded is decoded")
    return out


cdef int _check(int fault) except -1:
    if fault:
        raise ValueError(message_fault_text(fault))
    return 0


cdef list _fields_of(Octets block):
    return HpackDecoder().decode_block((<char*>block.data)[:block.size], 1 << 30)[0]


def request_of(fields not None, bint may_extend=False, int most_fields=USUAL_FIELDS):
    """Return the head, whether it is https, and :protocol (b"" for none), of (name, value, never indexed) triples.

    Raises ValueError with the rule that is broken.
    """
    cdef Head head = Head.__new__(Head)
    cdef RequestFacts facts
    # the view of :protocol lies in it
    cdef FieldList block = _list_of(fields)
    _check(read_request(block, head, may_extend, most_fields, &facts))
    return head, bool(facts.https), view_bytes(facts.protocol) if facts.protocol.len else b""


def response_of(fields not None, int most_fields=USUAL_FIELDS):
    """Return the head of a response; as `request_of`."""
    cdef Head head = Head.__new__(Head)
    _check(read_response(_list_of(fields), head, most_fields))
    return head


def trailers_of(fields not None, bint is_request=False, int most_fields=USUAL_FIELDS):
    """Return the lines of trailers; as `request_of`."""
    cdef Octets lines = Octets()
    cdef int dropped
    _check(read_trailers(_list_of(fields), is_request, most_fields, lines, &dropped))
    return (<char*>lines.data)[:lines.size] if lines.size else b""


def fields_of_request(Head head not None, bint https=True, bytes authority not None=b"", bytes protocol not None=b"",
                      HeadEdits edits=None):
    """Return the (name, value, never indexed) triples that a request leaves as."""
    cdef Octets out = Octets()
    write_request(HpackEncoder(), out, Octets(), head, edits, https, view_of(authority, len(authority)),
                  view_of(protocol, len(protocol)))
    return _fields_of(out)


def fields_of_response(Head head not None, HeadEdits edits=None):
    """Return the triples that a response leaves as."""
    cdef Octets out = Octets()
    write_response(HpackEncoder(), out, Octets(), head, edits)
    return _fields_of(out)


def fields_of_trailers(bytes lines not None):
    """Return the triples that trailers leave as; `lines` are field lines, each with its CRLF."""
    cdef Octets out = Octets()
    write_trailers(HpackEncoder(), out, Octets(), lines)
    return _fields_of(out) if out.size else []


def fields_of_own_response(int status, headers=(), Py_ssize_t length=-1):
    """Return the triples of a response of our own."""
    cdef Octets out = Octets()
    write_own_response(HpackEncoder(), out, Octets(), status, headers, length)
    return _fields_of(out)
