"""Message heads: bytes to facts, once, strictly (RFC 9112 sections 2 to 6, RFC 9110 section 7).

First the end of the head is looked for; on the way every control byte, bare CR and bare LF is refused as soon as it is seen. Then one pass
over the lines fills in the Head. What is stricter than RFC 9112 asks, because two readers could see two messages or two hosts:

- a request target is visible ASCII without ``#``; its absolute-form names http or https, a host, and no userinfo
- Host and Transfer-Encoding keep the rules of `head.pyx`

What has one meaning only is put right, and all that follows (decision, relay, log) sees it like that and not as it came:

- Host beside an absolute-form that names another host is replaced by that one (RFC 9112 section 3.2.2)
- in a response, white space between a name and its colon is removed (RFC 9112 section 5.1), and a status line gets the space that has to
  stand before its reason even if there is none (section 4)

Control bytes in the values of a response pass, but for CR, LF and NUL: servers send them, and clients take them.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp

from soth_mitm._dataplane.wire.fields cimport (
    ERROR_NAME_SPACE, FIELD_OTHER, USUAL_FIELDS, Field, block_error, field_error_text, parse_field_line,
)
from soth_mitm._dataplane.wire.head cimport (
    ERROR_HEADS_END, ERROR_HOST_DISAGREES, HTTP_1_0, Head, fact_error_text,
)
from soth_mitm._dataplane.wire.scan cimport (
    SOTH_END_CONTROL, soth_find_block_end, soth_find_control, soth_find_not_token, soth_find_not_visible,
    soth_is_token_byte, soth_parse_decimal,
)
from soth_mitm._dataplane.wire.target cimport Target, method_name, parse_target, target_error_text

from soth_mitm.errors import WireError


cdef enum:
    MAX_LIMIT = 1 << 30    # what offsets of 32 bits allow, with room
    NO_MEMORY = -100


# Numbered on from those of wire/head
cdef enum ParserError:
    ERROR_EMPTY_LINE = ERROR_HEADS_END
    ERROR_REQUEST_LINE
    ERROR_METHOD
    ERROR_TARGET_BYTE
    ERROR_VERSION
    ERROR_STATUS_LINE
    ERROR_STATUS_SPACE
    ERROR_STATUS
    ERROR_FIELD_COUNT


cdef str head_error_text(int error):
    cdef str text = field_error_text(error) or target_error_text(error) or fact_error_text(error)
    if text is not None:
        return text
    return {
        ERROR_EMPTY_LINE: "the start line is empty",
        ERROR_REQUEST_LINE: "the request line is not `method target HTTP/1.1`, separated by single spaces",
        ERROR_METHOD: "the method is not a token",
        ERROR_TARGET_BYTE: "the request target holds a byte that is not visible ASCII",
        ERROR_VERSION: "the HTTP version is neither 1.0 nor 1.1",
        ERROR_STATUS_LINE: "the status line is not `HTTP/1.1 status reason`",
        ERROR_STATUS: "the status is not a number from 100 to 999",
    }.get(error, "the head is malformed")


cdef bytes too_large_text(Head head, Py_ssize_t limit, int most_fields):
    if head.error == ERROR_FIELD_COUNT:
        return b"has more than %d fields (max_header_fields)" % most_fields
    return b"is longer than %d bytes (max_http_head_bytes)" % limit


# ---- start lines: the offset of the first field line, or -1 with head.error set --------------------------------------------------------

cdef inline Py_ssize_t _refuse(Head head, int error) noexcept nogil:
    head.error = <uint16_t>error
    return HEAD_MALFORMED


cdef Py_ssize_t _request_line(Head head, const char* base, uint32_t end) noexcept nogil:
    cdef uint32_t target, version, stop
    cdef Target parts
    cdef int error
    head.method_len = <uint32_t>soth_find_not_token(base, end)
    if base[head.method_len] != c" " or head.method_len == 0:
        if base[0] == c"\r":
            return _refuse(head, ERROR_EMPTY_LINE)
        return _refuse(head, ERROR_REQUEST_LINE if base[head.method_len] == c"\r" else ERROR_METHOD)
    head.method = method_name(base, head.method_len)
    target = head.method_len + 1
    head.target = target
    head.target_len = <uint32_t>soth_find_not_visible(base + target, end - target)
    version = target + head.target_len + 1
    if head.target_len == 0 or base[version - 1] == c"\r":
        return _refuse(head, ERROR_REQUEST_LINE)
    if base[version - 1] != c" ":
        return _refuse(head, ERROR_TARGET_BYTE)
    stop = version + <uint32_t>soth_find_control(base + version, end - version)
    if stop - version < 5 or memcmp(base + version, b"HTTP/", 5) != 0:
        return _refuse(head, ERROR_REQUEST_LINE)
    if stop - version != 8 or memcmp(base + version + 5, b"1.", 2) != 0 or not c"0" <= base[version + 7] <= c"1":
        return _refuse(head, ERROR_VERSION)
    head.version = HTTP_1_0 + (base[version + 7] - c"0")
    error = parse_target(base + target, head.target_len, head.method, &parts)
    head.form = parts.form
    head.https = parts.https
    head.authority = target + parts.authority
    head.authority_len = parts.authority_len
    head.path = target + parts.path
    head.path_len = parts.path_len
    return _refuse(head, error) if error else stop + 2


cdef int _version_error(const char* data, Py_ssize_t length) noexcept nogil:
    """Tell from its first bytes that something is no HTTP/1 response, without waiting for a line end that may never come."""
    cdef const char* expected = b"HTTP/1."
    cdef Py_ssize_t i
    for i in range(min(length, <Py_ssize_t>7)):
        if data[i] != expected[i]:
            return ERROR_STATUS_LINE if i < 5 else ERROR_VERSION
    return 0


cdef Py_ssize_t _status_line(Head head, const char* base, uint32_t end) noexcept nogil:
    cdef uint32_t stop = <uint32_t>soth_find_control(base, end)
    if base[stop] != c"\r":
        # what may stand in a value may not here
        return _refuse(head, block_error(SOTH_END_CONTROL))
    if stop < 9 or base[8] != c" ":
        return _refuse(head, ERROR_STATUS_LINE)
    if not c"0" <= base[7] <= c"1":
        return _refuse(head, ERROR_VERSION)
    head.version = HTTP_1_0 + (base[7] - c"0")
    if stop < 12 or base[9] == c"0" or soth_parse_decimal(base + 9, 3) < 0:
        return _refuse(head, ERROR_STATUS)
    head.status = <uint16_t>soth_parse_decimal(base + 9, 3)
    if stop == 12:
        return _refuse(head, ERROR_STATUS_SPACE)
    if base[12] != c" ":
        return _refuse(head, ERROR_STATUS_LINE)
    head.reason = 13
    head.reason_len = stop - 13
    return stop + 2


# ---- fields ----------------------------------------------------------------------------------------------

cdef int _parse_fields(Head head, const char* base, uint32_t offset, uint32_t end, int most_fields) noexcept nogil:
    """Read all field lines; 0, HEAD_MALFORMED, HEAD_TOO_LARGE or NO_MEMORY."""
    cdef Field* field
    cdef int error
    while offset < end:
        if head.count == most_fields:
            head.error = ERROR_FIELD_COUNT
            return HEAD_TOO_LARGE
        if head.count == head.room and head.reserve(2 * head.room) < 0:
            return NO_MEMORY
        field = &head.fields[head.count]
        error = parse_field_line(base, offset, end, field)
        if error == 0 and field.name != FIELD_OTHER:
            error = head.gather(base, field)
        if error:
            return <int>_refuse(head, error)
        head.count += 1
        offset += field.line_len
    return 0


# ---- whole heads -----------------------------------------------------------------------------------------------------------------------

cdef int _parse_lines(Head head, const char* data, uint32_t end, int most_fields) noexcept nogil:
    """Fill in the head whose final empty line begins at `end`; 0 or a code."""
    cdef Py_ssize_t offset
    cdef int code
    if head.is_request:
        offset = _request_line(head, data, end)
    else:
        offset = _status_line(head, data, end)
    if offset < 0:
        return HEAD_MALFORMED
    code = _parse_fields(head, data, <uint32_t>offset, end, most_fields)
    if code == 0:
        code = head.check(data)
        if code:
            _refuse(head, code)
            return HEAD_MALFORMED
    return code


cdef bytes _put_right(Head head, bytes block):
    """Return the block as it should have been written."""
    cdef list lines = block.split(b"\r\n")
    cdef bytes authority = block[head.authority:head.authority + head.authority_len]
    cdef Py_ssize_t i
    if not head.is_request and len(lines[0]) == 12:
        lines[0] += b" "
    for i in range(1, len(lines) - 2):
        name, colon, value = lines[i].partition(b":")
        if not head.is_request:
            lines[i] = name.rstrip(b" \t") + colon + value
        elif name.lower() == b"host":
            lines[i] = name + b": " + authority
    return b"\r\n".join(lines)


cdef Py_ssize_t _parse_block(Head head, const char* data, Py_ssize_t length, Py_ssize_t limit, int most_fields, Py_ssize_t skipped,
                             Py_ssize_t* scanned) except -100:
    """Find the end of the head that begins at `data`, `skipped` bytes into the caller's buffer, and parse it."""
    cdef Py_ssize_t window = min(length, limit)
    cdef size_t position = min(max(scanned[0] - skipped, <Py_ssize_t>0), window)
    cdef Py_ssize_t end = soth_find_block_end(data, window, not head.is_request, &position)
    cdef int code
    scanned[0] = position + skipped
    if end < 0:
        return _refuse(head, block_error(end))
    if end == 0:
        return HEAD_TOO_LARGE if length >= limit else HEAD_MORE
    code = _parse_lines(head, data, <uint32_t>end - 2, most_fields)
    head.raw = PyBytes_FromStringAndSize(data, end) if code == 0 else b""
    if code == HEAD_MALFORMED and (head.error in (ERROR_HOST_DISAGREES, ERROR_STATUS_SPACE)
                                   or (head.error == ERROR_NAME_SPACE and not head.is_request)):
        head.raw = _put_right(head, data[:end])
        head.forget_fields()
        code = _parse_lines(head, PyBytes_AS_STRING(head.raw), <uint32_t>len(head.raw) - 2, most_fields)
    if code == NO_MEMORY:
        raise MemoryError
    return skipped + end if code == 0 else code


cdef Py_ssize_t parse_request_head(Head head, const char* data, Py_ssize_t length, Py_ssize_t limit, int most_fields,
                                   Py_ssize_t* scanned) except -100:
    cdef Py_ssize_t skipped = 0
    head.is_request = True
    if length >= 2 and data[0] == c"\r" and data[1] == c"\n":
        skipped = 2
    if length == skipped or (length == 1 and data[0] == c"\r"):
        return HEAD_MORE
    # Refused before its line ends: what arrives on a proxy's port need not be HTTP (control bytes
    # are left to the scan)
    if not soth_is_token_byte(data[skipped]) and soth_find_control(data + skipped, 1) == 1:
        return _refuse(head, ERROR_METHOD)
    return _parse_block(head, data + skipped, length - skipped, limit, most_fields, skipped, scanned)


cdef Py_ssize_t parse_response_head(Head head, const char* data, Py_ssize_t length, Py_ssize_t limit, int most_fields,
                                    Py_ssize_t* scanned) except -100:
    cdef int error = _version_error(data, length)
    head.is_request = False
    if error:
        return _refuse(head, error)
    return _parse_block(head, data, length, limit, most_fields, 0, scanned)


@cython.final
cdef class HeadReader:
    """Parses one head that arrives in pieces, for Python; here a code becomes an exception."""

    cdef bint is_request
    cdef Py_ssize_t limit, scanned
    cdef int most_fields

    def __cinit__(self, bint is_request, Py_ssize_t limit=65536, int most_fields=USUAL_FIELDS):
        if not 0 < limit <= MAX_LIMIT:
            raise ValueError(f"limit: {limit} is not in 1..{MAX_LIMIT}")
        self.is_request = is_request
        self.limit = limit
        self.most_fields = most_fields

    def feed(self, bytes data not None):
        """Parse the head at the start of `data`, which holds all bytes that have arrived so far.

        Returns (head, bytes consumed), or None when its end is not there yet. `limit` is the most bytes that
        the head may have, `most_fields` the most field lines. Raises WireError; its `status` is what the
        client is to be answered.
        """
        cdef Head head = Head.__new__(Head)
        cdef Py_ssize_t code
        if self.is_request:
            code = parse_request_head(head, data, len(data), self.limit, self.most_fields, &self.scanned)
        else:
            code = parse_response_head(head, data, len(data), self.limit, self.most_fields, &self.scanned)
        if code > 0:
            return head, code
        if code == HEAD_MORE:
            return None
        if code == HEAD_TOO_LARGE:
            text, status = "the head " + too_large_text(head, self.limit, self.most_fields).decode(), 431
        else:
            text, status = head_error_text(head.error), 400
        raise WireError(text, side="client" if self.is_request else "upstream", status=status if self.is_request else 502)
