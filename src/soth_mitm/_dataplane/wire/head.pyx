"""Message heads: bytes to facts, once, strictly (RFC 9112 sections 2 to 6, RFC 9110 section 7).

First the end of the head is looked for; on the way every control byte, bare CR and bare LF is refused as soon as it is seen. Then one pass
over the lines fills in the Head. What is stricter than RFC 9112 asks, because two readers could see two messages or two hosts:

- a request target is visible ASCII without ``#``; its absolute-form names http or https, a host, and no userinfo
- Host is present exactly once on HTTP/1.1 and at most once on 1.0, is valid and never empty
- Transfer-Encoding is ``chunked`` alone, on HTTP/1.1 only, and never beside Content-Length

What has one meaning only is put right, and all that follows (decision, relay, log) sees it like that and not as it came:

- Host beside an absolute-form that names another host is replaced by that one (RFC 9112 section 3.2.2)
- in a response, white space between a name and its colon is removed (RFC 9112 section 5.1), and a status line gets the space that has to
  stand before its reason even if there is none (section 4)

Control bytes in the values of a response pass, but for CR, LF and NUL: servers send them, and clients take them.

A field that `Connection` names stops here, except those that say where a message ends, where it goes, what it is or how it is asked for
(see `fields.pyx`): a peer must not be able to change a message by naming them.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from soth_mitm._dataplane.wire.fields cimport (
    ERROR_NAME_SPACE, USUAL_FIELDS, ConnectionOptions, block_error, field_error_text, parse_field_line, read_connection,
    read_content_length,
)
from soth_mitm._dataplane.wire.scan cimport (
    SOTH_END_CONTROL, soth_equals_lower, soth_find_block_end, soth_find_control, soth_find_not_token, soth_find_not_visible,
    soth_is_token_byte, soth_parse_authority, soth_parse_decimal,
)
from soth_mitm._dataplane.wire.target cimport ERROR_TARGETS_END, Target, method_name, parse_target, same_authority, target_error_text
from soth_mitm._dataplane.memory.view cimport view_bytes, view_of

from soth_mitm.errors import WireError


cdef enum:
    MAX_LIMIT = 1 << 30    # what offsets of 32 bits allow, with room
    NO_MEMORY = -100


cdef enum HeadError:
    ERROR_EMPTY_LINE = ERROR_TARGETS_END
    ERROR_REQUEST_LINE
    ERROR_METHOD
    ERROR_TARGET_BYTE
    ERROR_VERSION
    ERROR_STATUS_LINE
    ERROR_STATUS_SPACE
    ERROR_STATUS
    ERROR_FIELD_COUNT
    ERROR_HOST_MISSING
    ERROR_HOST_TWICE
    ERROR_HOST
    ERROR_HOST_DISAGREES
    ERROR_CODING
    ERROR_CODING_TWICE
    ERROR_CODING_VERSION
    ERROR_CODING_AND_LENGTH


cdef str head_error_text(int error):
    cdef str text = field_error_text(error) or target_error_text(error)
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
        ERROR_HOST_MISSING: "Host is missing",
        ERROR_HOST_TWICE: "Host is there more than once",
        ERROR_HOST: "Host is not a valid host and port",
        ERROR_CODING: "Transfer-Encoding is something else than `chunked`",
        ERROR_CODING_TWICE: "Transfer-Encoding is there more than once",
        ERROR_CODING_VERSION: "Transfer-Encoding stands in an HTTP/1.0 message",
        ERROR_CODING_AND_LENGTH: "Transfer-Encoding and Content-Length are both there",
    }.get(error, "the head is malformed")


cdef str version_text(int version):
    if version == HTTP_2:
        return "HTTP/2"
    return "HTTP/1.1" if version == HTTP_1_1 else "HTTP/1.0"


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


# ---- fields ----------------------------------------------------------------------------------------------------------------------------

cdef int _make_room(Head head) noexcept nogil:
    """Make room for twice as many fields; 0 or NO_MEMORY."""
    cdef bint is_inline = head.fields == head.inline_fields
    cdef Field* fields = <Field*>realloc(NULL if is_inline else head.fields, 2 * head.room * sizeof(Field))
    if fields == NULL:
        return NO_MEMORY
    if is_inline:
        memcpy(fields, head.fields, head.room * sizeof(Field))
    head.fields = fields
    head.room *= 2
    return 0


cdef int _parse_fields(Head head, const char* base, uint32_t offset, uint32_t end, int most_fields) noexcept nogil:
    """Read all field lines; 0, HEAD_MALFORMED, HEAD_TOO_LARGE or NO_MEMORY."""
    cdef Field* field
    cdef int error
    while offset < end:
        if head.count == most_fields:
            head.error = ERROR_FIELD_COUNT
            return HEAD_TOO_LARGE
        if head.count == head.room and _make_room(head):
            return NO_MEMORY
        field = &head.fields[head.count]
        error = parse_field_line(base, offset, end, field)
        if error == 0 and field.name != FIELD_OTHER:
            error = _note_field(head, base, field)
        if error:
            return <int>_refuse(head, error)
        head.count += 1
        offset += field.line_len
    return 0


cdef int _note_field(Head head, const char* base, Field* field) noexcept nogil:
    """Gather what a known field says; 0 or an error."""
    cdef const char* value = base + field.value
    cdef unsigned int port
    if field.name == FIELD_HOST and head.is_request:
        if head.host >= 0:
            return ERROR_HOST_TWICE
        head.host = head.count
        return 0 if soth_parse_authority(value, field.value_len, &port) else ERROR_HOST
    elif field.name == FIELD_CONTENT_LENGTH:
        return read_content_length(value, field.value_len, &head.content_length, &head.length_repeated)
    elif field.name == FIELD_TRANSFER_ENCODING:
        if head.chunked:
            return ERROR_CODING_TWICE
        if field.value_len != 7 or not soth_equals_lower(value, b"chunked", 7):
            return ERROR_CODING
        head.chunked = True
    elif field.name == FIELD_EXPECT:
        if field.value_len == 12 and soth_equals_lower(value, b"100-continue", 12):
            if head.version != HTTP_1_0:
                head.expect_continue = True
            elif head.is_request:
                # RFC 9110 section 10.1.1: an HTTP/1.0 client does not wait for 100, and is sent on as if it had not said so
                field.hop = 1
                head.has_hop = True
    elif field.name in (FIELD_CONNECTION, FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION, FIELD_PROXY_AUTHORIZATION, FIELD_TE, FIELD_UPGRADE):
        field.hop = 1
        head.has_hop = True
    return 0


cdef int _check_host(Head head, const char* base) noexcept nogil:
    cdef Field* host
    if head.host < 0:
        return 0 if head.version == HTTP_1_0 else ERROR_HOST_MISSING
    if head.form == TARGET_ABSOLUTE:
        host = &head.fields[head.host]
        if not same_authority(base + head.authority, head.authority_len, base + host.value, host.value_len, 443 if head.https else 80):
            return ERROR_HOST_DISAGREES
    return 0


cdef int _check_fields(Head head, const char* base) noexcept nogil:
    """Check what only all fields together can tell."""
    cdef ConnectionOptions options
    cdef int error = 0
    if head.chunked:
        if head.version == HTTP_1_0:
            return ERROR_CODING_VERSION
        if head.content_length >= 0:
            return ERROR_CODING_AND_LENGTH
    if head.has_hop:
        error = read_connection(base, head.fields, head.count, &options)
        head.connection_close = options.close
        head.connection_keep_alive = options.keep_alive
        # RFC 9110 section 7.8: HTTP/1.0 has no upgrade
        head.connection_upgrade = options.upgrade and head.version == HTTP_1_1
    if head.is_request and error == 0:
        error = _check_host(head, base)
    return error


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
        code = _check_fields(head, data)
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


cdef void _forget_fields(Head head) noexcept nogil:
    head.error = 0
    head.count = 0
    head.content_length = -1
    head.length_repeated = head.chunked = head.expect_continue = head.has_hop = False
    head.connection_close = head.connection_keep_alive = head.connection_upgrade = False
    head.host = -1


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
        _forget_fields(head)
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
    # Refused before its line ends: what arrives on a proxy's port need not be HTTP (control bytes are left to the scan)
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


cdef tuple _parse_bytes(bytes data, bint is_request, Py_ssize_t limit, int most_fields, Py_ssize_t* scanned):
    """Parse for Python; here a code becomes an exception."""
    cdef Head head = Head.__new__(Head)
    cdef Py_ssize_t code
    if not 0 < limit <= MAX_LIMIT:
        raise ValueError(f"limit: {limit} is not in 1..{MAX_LIMIT}")
    if is_request:
        code = parse_request_head(head, PyBytes_AS_STRING(data), len(data), limit, most_fields, scanned)
    else:
        code = parse_response_head(head, PyBytes_AS_STRING(data), len(data), limit, most_fields, scanned)
    if code > 0:
        return head, code
    if code == HEAD_MORE:
        return None
    if code == HEAD_TOO_LARGE:
        text, status = "the head " + too_large_text(head, limit, most_fields).decode(), 431
    else:
        text, status = head_error_text(head.error), 400
    raise WireError(text, side="client" if is_request else "upstream", status=status if is_request else 502)


cdef str _host_value(Head head):
    if head.host < 0:
        return None
    return view_bytes(head.span(head.fields[head.host].value, head.fields[head.host].value_len)).decode("ascii")


@cython.final
cdef class HeadReader:
    """Parses one head that arrives in pieces, for tests, fuzzing and tools; the proxy itself uses the functions above."""

    cdef bint is_request
    cdef Py_ssize_t limit, scanned
    cdef int most_fields

    def __cinit__(self, bint is_request, Py_ssize_t limit=65536, int most_fields=USUAL_FIELDS):
        self.is_request = is_request
        self.limit = limit
        self.most_fields = most_fields

    def feed(self, bytes data not None):
        """Parse `data`, all bytes that have arrived so far: answers and raises as `Head.parse_request` does."""
        return _parse_bytes(data, self.is_request, self.limit, self.most_fields, &self.scanned)


@cython.final
@cython.freelist(64)
cdef class Head:
    """One parsed head. Made by `parse_request` or `parse_response`; read-only."""

    def __cinit__(self):
        self.raw = b""
        self.version = HTTP_1_0
        self.content_length = -1
        self.host = -1
        self.fields = self.inline_fields
        self.room = INLINE_FIELDS

    def __dealloc__(self):
        if self.fields != self.inline_fields:
            free(self.fields)

    cdef const char* base(self) noexcept:
        return PyBytes_AS_STRING(self.raw)

    cdef View span(self, uint32_t offset, uint32_t length) noexcept:
        return view_of(PyBytes_AS_STRING(self.raw) + offset, length)

    cdef int find_known(self, int name) noexcept:
        cdef int i
        for i in range(self.count):
            if self.fields[i].name == name:
                return i
        return -1

    cdef int find(self, const char* name, Py_ssize_t length) noexcept:
        cdef const char* base = PyBytes_AS_STRING(self.raw)
        cdef int i
        for i in range(self.count):
            if self.fields[i].name_len == length and soth_equals_lower(base + self.fields[i].line, name, length):
                return i
        return -1

    cdef bint keeps_alive(self) noexcept:
        # Unlike section 9.3 we let an HTTP/1.0 client keep its connection: what it guards against, blind proxies that pass
        # `Connection: keep-alive` on, cannot happen here, where Connection stops.
        if self.connection_close:
            return False
        return self.version != HTTP_1_0 or self.connection_keep_alive

    cdef bytes origin_target(self):
        if self.form == TARGET_AUTHORITY:
            return b""
        if self.path_len == 0:
            # RFC 9112 section 3.2.4: an absolute-form of OPTIONS without a path means the server itself
            return b"*" if self.method == METHOD_OPTIONS else b"/"
        target = self.raw[self.path:self.path + self.path_len]
        return target if self.form != TARGET_ABSOLUTE or target[0] == c"/" else b"/" + target

    @staticmethod
    def parse_request(bytes data not None, Py_ssize_t limit=65536, int most_fields=USUAL_FIELDS):
        """Parse the request head at the start of `data`: (head, bytes consumed), or None when its end is not there yet.

        `limit` is the most bytes that the head may have, `most_fields` the most field lines. Raises WireError, whose
        `status` is what the client is to be answered.
        """
        cdef Py_ssize_t scanned = 0
        return _parse_bytes(data, True, limit, most_fields, &scanned)

    @staticmethod
    def parse_response(bytes data not None, Py_ssize_t limit=65536, int most_fields=USUAL_FIELDS):
        """Parse the response head at the start of `data`; as `parse_request`, the status of a WireError is 502."""
        cdef Py_ssize_t scanned = 0
        return _parse_bytes(data, False, limit, most_fields, &scanned)

    @property
    def version(self):
        """`"HTTP/1.0"`, `"HTTP/1.1"` or `"HTTP/2"`."""
        return version_text(self.version)

    @property
    def method(self):
        """The method as received, `""` on a response."""
        return self.raw[:self.method_len].decode("ascii")

    @property
    def target(self):
        """The request target as received, `""` on a response."""
        return self.raw[self.target:self.target + self.target_len].decode("ascii")

    @property
    def path(self):
        """The target in origin-form, query included; `"*"` for the server as a whole, `""` for CONNECT and responses."""
        return self.origin_target().decode("ascii") if self.is_request else ""

    @property
    def authority(self):
        """Host and port as the target (absolute-form, CONNECT) or else Host names them; None when nothing does."""
        if self.authority_len:
            return self.raw[self.authority:self.authority + self.authority_len].decode("ascii")
        return _host_value(self)

    @property
    def host(self):
        """The value of Host, None without one and on a response."""
        return _host_value(self)

    @property
    def reason(self):
        """The reason phrase of a response, often empty."""
        return self.raw[self.reason:self.reason + self.reason_len]

    @property
    def fields(self):
        """Names and values in order, as received."""
        return [
            (self.raw[field.line:field.line + field.name_len], self.raw[field.value:field.value + field.value_len])
            for field in self.fields[:self.count]
        ]

    @property
    def facts(self):
        """What the proxy itself acts upon, by name: for tests and tools."""
        return {
            "content_length": self.content_length, "chunked": bool(self.chunked), "expect_continue": bool(self.expect_continue),
            "upgrade": bool(self.connection_upgrade), "keeps_alive": bool(self.keeps_alive()),
        }

    def __repr__(self):
        if not self.raw:
            return "<Head, not parsed>"
        line = self.raw[:self.raw.index(b"\r\n")].decode("latin-1")
        return f"<Head {line!r}, {self.count} fields>"
