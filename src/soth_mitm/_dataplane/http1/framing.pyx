"""Where a message ends (RFC 9112 section 6.3), and what of it is content.

Chunked framing is checked byte for byte, because it is relayed as it came: a size is 1 to 16 hexadecimal digits that fit 63 bits, nothing
stands between it and the CRLF but an extension that begins with ``;``, the CRLF after the data is there, and the trailer section keeps the
rules of field lines. In a response white space may follow the size, which many servers write; it is not relayed.

A field that frames or routes the message or concerns the connection is refused as a trailer. Others that RFC 9110 section 6.5.1 keeps out
are read, and not sent on: `trailer_rule` of wire/fields tells them apart.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint16_t, uint32_t

from soth_mitm._dataplane.wire.fields cimport (
    ERROR_BARE_CR, ERROR_BARE_LF, ERROR_CONTROL, ERROR_FIELDS_END, TRAILER_DROPPED, TRAILER_REFUSED, USUAL_FIELDS, Field, block_error,
    field_error_text, parse_field_line, passing_trailers, trailer_rule,
)
from soth_mitm._dataplane.wire.head cimport METHOD_CONNECT, METHOD_HEAD, Head
from soth_mitm._dataplane.wire.scan cimport SOTH_NUMBER_OVERFLOW, soth_find_block_end, soth_find_control, soth_parse_hex
from soth_mitm._dataplane.wire.target cimport method_name
from soth_mitm._dataplane.memory.view cimport view_bytes, view_of

from soth_mitm.errors import WireError


cdef enum:
    MAX_SIZE_DIGITS = 16


# Numbered on from FieldError
cdef enum BodyError:
    ERROR_CHUNK_SIZE = ERROR_FIELDS_END
    ERROR_CHUNK_RANGE
    ERROR_CHUNK_LINE
    ERROR_CHUNK_EXCESS
    ERROR_CHUNK_END
    ERROR_TRAILERS_LONG
    ERROR_TRAILER_COUNT
    ERROR_TRAILER_NAME
    ERROR_CONNECT_BODY
    ERROR_CUT
    ERROR_CONTENT_LONG
    ERROR_CONTENT_SHORT


cdef str body_error_text(int error):
    return field_error_text(error) or {
        ERROR_CHUNK_SIZE: "a chunk does not begin with its size in hexadecimal digits",
        ERROR_CHUNK_RANGE: "a chunk size is too large a number",
        ERROR_CHUNK_LINE: f"a chunk-size line is longer than {MAX_CHUNK_LINE} bytes",
        ERROR_CHUNK_EXCESS: "the chunk extensions together are far longer than the content",
        ERROR_CHUNK_END: "a chunk's data is not followed by CRLF",
        ERROR_TRAILERS_LONG: "the trailer section is longer than a head may be (max_http_head_bytes)",
        ERROR_TRAILER_COUNT: "the trailer section has more fields than a head may have (max_header_fields)",
        ERROR_TRAILER_NAME: "a field stands in the trailer section that may only stand in the head",
        ERROR_CONNECT_BODY: "a CONNECT request has content",
        ERROR_CUT: "the connection ended before the message did",
        ERROR_CONTENT_LONG: "there is more content than Content-Length announces",
        ERROR_CONTENT_SHORT: "there is less content than Content-Length announces",
    }.get(error, "the body is malformed")


# ---- which framing ---------------------------------------------------------------------------------------------------------------------

cdef void _begin(Body* body, int kind, int64_t length) noexcept nogil:
    body.kind = <uint8_t>kind
    body.error = 0
    body.remaining = length
    body.payload_total = 0
    body.excess = 0
    body.gap = body.gap_len = 0
    body.trailers_dropped = 0
    if kind == BODY_NONE or (kind == BODY_LENGTH and length == 0):
        body.state = BODY_DONE
    else:
        body.state = BODY_CHUNK_SIZE if kind == BODY_CHUNKED else BODY_DATA


cdef int _fail(Body* body, int error) noexcept nogil:
    body.state = BODY_FAILED
    body.error = <uint16_t>error
    return -1


cdef int body_of_request(Body* body, Head head, Py_ssize_t trailer_limit, int most_fields) noexcept:
    body.trailer_limit = trailer_limit
    body.most_fields = most_fields
    body.loose = False
    if head.chunked:
        _begin(body, BODY_CHUNKED, 0)
    elif head.content_length > 0:
        _begin(body, BODY_LENGTH, head.content_length)
    else:
        _begin(body, BODY_NONE, 0)
    if head.method == METHOD_CONNECT and body.kind != BODY_NONE:
        # RFC 9110 section 9.3.6: what follows CONNECT is the tunnel; a client that announces
        # content means something else by these bytes
        return _fail(body, ERROR_CONNECT_BODY)
    return 0


cdef inline bint _is_bodiless(Head head, int request_method) noexcept:
    """Tell whether the response has no content, whatever its head announces."""
    return request_method == METHOD_HEAD or head.status < 200 or head.status == 204 or head.status == 304


cdef void body_of_response(Body* body, Head head, int request_method, Py_ssize_t trailer_limit, int most_fields) noexcept:
    body.trailer_limit = trailer_limit
    body.most_fields = most_fields
    body.loose = True
    if _is_bodiless(head, request_method):
        _begin(body, BODY_NONE, 0)
    elif head.chunked:
        _begin(body, BODY_CHUNKED, 0)
    elif head.content_length >= 0:
        _begin(body, BODY_LENGTH, head.content_length)
    else:
        _begin(body, BODY_UNTIL_CLOSE, 0)


cdef int body_of_stream(Body* body, Head head, int request_method) noexcept:
    body.trailer_limit = 0
    body.most_fields = 0
    body.loose = False
    _begin(body, BODY_STREAM, head.content_length)
    if head.is_request:
        return _fail(body, ERROR_CONNECT_BODY) if head.method == METHOD_CONNECT and head.content_length > 0 else 0
    if _is_bodiless(head, request_method):
        body.remaining = 0
    return 0


cdef void body_without_framing(Body* body) noexcept nogil:
    body.trailer_limit = 0
    body.most_fields = 0
    body.loose = False
    _begin(body, BODY_STREAM, -1)


cdef int body_add(Body* body, Py_ssize_t length) noexcept nogil:
    if body.state == BODY_FAILED:
        return -1
    if body.remaining >= 0:
        if length > body.remaining:
            return _fail(body, ERROR_CONTENT_LONG)
        body.remaining -= length
    body.payload_total += length
    return 0


cdef int body_end(Body* body) noexcept nogil:
    if body.state == BODY_FAILED:
        return -1
    if body.remaining > 0:
        return _fail(body, ERROR_CONTENT_SHORT)
    # and so more content is too much
    body.remaining = 0
    body.state = BODY_DONE
    return 0


# ---- the chunked machine: each step answers bytes consumed, 0 for more, or -(its error) -----------------------------------------------

cdef Py_ssize_t _size_line(Body* body, const char* data, Py_ssize_t length) noexcept nogil:
    cdef size_t window = min(length, <Py_ssize_t>MAX_CHUNK_LINE)
    cdef size_t end = soth_find_control(data, window)
    cdef size_t digits = 0, behind
    cdef int64_t size
    if end < window and data[end] != c"\r":
        return -ERROR_BARE_LF if data[end] == c"\n" else -ERROR_CONTROL
    if end + 1 >= window:
        return -ERROR_CHUNK_LINE if length >= MAX_CHUNK_LINE else 0
    if data[end + 1] != c"\n":
        return -ERROR_BARE_CR
    size = soth_parse_hex(data, end, MAX_SIZE_DIGITS, &digits)
    if size < 0:
        return -ERROR_CHUNK_RANGE if size == SOTH_NUMBER_OVERFLOW else -ERROR_CHUNK_SIZE
    behind = digits
    while body.loose and behind < end and (data[behind] == c" " or data[behind] == c"\t"):
        behind += 1
    if behind < end and data[behind] != c";":
        return -ERROR_CHUNK_SIZE
    body.gap = digits
    body.gap_len = behind - digits
    # a line may be long, but small chunks with long lines would make us keep or move many times the
    # content
    body.excess += <int64_t>end + 2 - CHUNK_ALLOWANCE - 2 * min(size, <int64_t>MAX_EXCESS)
    if body.excess < 0:
        body.excess = 0
    elif body.excess > MAX_EXCESS:
        return -ERROR_CHUNK_EXCESS
    body.remaining = size
    body.state = BODY_DATA if size else BODY_TRAILERS
    return end + 2


cdef Py_ssize_t _data_end(Body* body, const char* data, Py_ssize_t length) noexcept nogil:
    if length == 0:
        return 0
    if data[0] != c"\r" or (length > 1 and data[1] != c"\n"):
        return -ERROR_CHUNK_END
    if length == 1:
        return 0
    body.state = BODY_CHUNK_SIZE
    return 2


cdef Py_ssize_t _trailers(Body* body, const char* data, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t window = min(length, body.trailer_limit)
    cdef size_t scanned = min(body.remaining, <int64_t>window)     # no chunk is open: `remaining` counts what is known to be clean
    cdef Py_ssize_t end = soth_find_block_end(data, window, body.loose, &scanned)
    cdef Py_ssize_t offset = 0
    cdef int error, rule, count = 0, dropped = 0
    cdef Field field
    body.remaining = scanned
    if end < 0:
        return -block_error(end)
    if end == 0:
        return -ERROR_TRAILERS_LONG if length >= body.trailer_limit else 0
    while offset < end - 2:
        error = parse_field_line(data, <uint32_t>offset, <uint32_t>(end - 2), &field)
        if error:
            return -error
        rule = trailer_rule(data, &field)
        if rule == TRAILER_REFUSED:
            return -ERROR_TRAILER_NAME
        if rule == TRAILER_DROPPED:
            dropped += 1
        count += 1
        if count > body.most_fields:
            return -ERROR_TRAILER_COUNT
        offset += field.line_len
    body.remaining = 0
    body.trailers_dropped = dropped
    body.state = BODY_DONE
    return end


cdef Py_ssize_t body_next(Body* body, const char* data, Py_ssize_t length, View* payload, View* trailers) noexcept nogil:
    return body_next_within(body, data, length, length, payload, trailers)


cdef Py_ssize_t body_next_within(Body* body, const char* data, Py_ssize_t length, Py_ssize_t most, View* payload,
                                 View* trailers) noexcept nogil:
    cdef Py_ssize_t at = 0, step
    payload[0] = view_of(data, 0)
    if trailers != NULL:
        trailers[0] = view_of(data, 0)
    body.gap_len = 0
    if body.state == BODY_FAILED:
        return -1
    # One call takes all that lies here up to a second run of content: for small chunks that is a
    # call a chunk, not three.
    while body.state != BODY_DONE:
        if body.state == BODY_DATA:
            step = min(length - at, most)
            if payload.len or step == 0:
                break
            if body.kind != BODY_UNTIL_CLOSE:
                step = <Py_ssize_t>min(body.remaining, <int64_t>step)
                body.remaining -= step
                if body.remaining == 0:
                    body.state = BODY_DONE if body.kind == BODY_LENGTH else BODY_CHUNK_END
            payload[0] = view_of(data + at, step)
            body.payload_total += step
        elif body.state == BODY_CHUNK_SIZE:
            step = _size_line(body, data + at, length - at)
        elif body.state == BODY_CHUNK_END:
            step = _data_end(body, data + at, length - at)
        else:
            step = _trailers(body, data + at, length - at)
            if step > 0 and trailers != NULL:
                trailers[0] = view_of(data + at, step - 2)
        if step == 0:
            break
        if step < 0:
            # What came before the fault is good and is reported first; the next call meets the
            # fault again, at its first byte.
            return at if at else _fail(body, <int>-step)
        at += step
        if body.gap_len:
            # one at a time
            body.gap += at - step
            break
    return at


cdef Py_ssize_t body_framing_due(Body* body, const char* data, Py_ssize_t length, int64_t* run) noexcept nogil:
    cdef Py_ssize_t at = 0, step
    while body.state == BODY_CHUNK_SIZE or body.state == BODY_CHUNK_END:
        step = _size_line(body, data + at, length - at) if body.state == BODY_CHUNK_SIZE else _data_end(body, data + at, length - at)
        if step <= 0:
            break
        at += step
    run[0] = 0
    if body.state == BODY_DATA:
        run[0] = body.remaining
        body.state = BODY_CHUNK_END
    return at


cdef void body_reenter(Body* body, int64_t remaining) noexcept nogil:
    body.state = BODY_DATA
    body.remaining = remaining


cdef int body_eof(Body* body) noexcept nogil:
    if body.kind == BODY_UNTIL_CLOSE and body.state == BODY_DATA:
        body.state = BODY_DONE
    if body.state == BODY_DONE:
        return 0
    return -1 if body.state == BODY_FAILED else _fail(body, ERROR_CUT)


# ---- for Python ------------------------------------------------------------------------------------------------------------------------

@cython.final
cdef class BodyReader:
    """The body that follows one head, for tests, fuzzing and tools; the proxy itself uses the functions above."""

    cdef Body body
    cdef str side
    cdef Py_ssize_t lines_at
    cdef Py_ssize_t lines_len

    def __cinit__(self):
        _begin(&self.body, BODY_NONE, 0)
        self.side = "client"

    @staticmethod
    def of_request(Head head not None, Py_ssize_t trailer_limit=65536, int most_fields=USUAL_FIELDS):
        """Read the body of a request. Raises WireError (400) when its framing is refused."""
        cdef BodyReader reader = BodyReader()
        if body_of_request(&reader.body, head, trailer_limit, most_fields) < 0:
            raise reader._error()
        return reader

    @staticmethod
    def of_response(Head head not None, bytes method=b"GET", Py_ssize_t trailer_limit=65536, int most_fields=USUAL_FIELDS):
        """Read the body of the response to a `method` request."""
        cdef BodyReader reader = BodyReader()
        reader.side = "upstream"
        body_of_response(&reader.body, head, method_name(method, <uint32_t>len(method)), trailer_limit, most_fields)
        return reader

    @staticmethod
    def of_stream(Head head not None, bytes method=b"GET"):
        """Read the body of a message that came on a stream; `method` is that of the request that a response answers."""
        cdef BodyReader reader = BodyReader()
        reader.side = "client" if head.is_request else "upstream"
        if body_of_stream(&reader.body, head, method_name(method, <uint32_t>len(method))) < 0:
            raise reader._error()
        return reader

    cdef object _error(self):
        return WireError(body_error_text(self.body.error), side=self.side, status=400 if self.side == "client" else 502)

    @property
    def kind(self):
        """`"none"`, `"length"`, `"chunked"`, `"until_close"` or `"stream"`."""
        return ("none", "length", "chunked", "until_close", "stream")[self.body.kind]

    @property
    def done(self):
        """True when the message is complete."""
        return self.body.state == BODY_DONE

    @property
    def payload_total(self):
        """Bytes of content seen so far."""
        return self.body.payload_total

    @property
    def gap(self):
        """Where in what the last `feed` consumed white space begins that is not relayed, and how long it is."""
        return self.body.gap, self.body.gap_len

    @property
    def lines_replaced(self):
        """Where in what the last `feed` consumed trailer lines begin of which some are not sent on, and how long they are together."""
        return self.lines_at, self.lines_len

    def feed(self, bytes data not None, Py_ssize_t start=0):
        """Take one piece from `data`, which begins at `start`: (bytes consumed, content, trailer lines).

        Nothing consumed means that more bytes are needed, or that the body is done; bytes not consumed are to be fed again. Trailer lines
        that are not to be sent on are left out. Raises WireError when the body is malformed, and again at every later call.
        """
        cdef View payload, trailers
        cdef Py_ssize_t consumed
        self.lines_at = self.lines_len = 0
        if not 0 <= start <= len(data):
            raise ValueError(f"start: {start} is not within the {len(data)} bytes given")
        consumed = body_next(&self.body, PyBytes_AS_STRING(data) + start, len(data) - start, &payload, &trailers)
        if consumed < 0:
            raise self._error()
        if trailers.len and self.body.trailers_dropped:
            self.lines_at = trailers.ptr - (PyBytes_AS_STRING(data) + start)
            self.lines_len = trailers.len
            return consumed, view_bytes(payload), passing_trailers(trailers.ptr, <uint32_t>trailers.len)
        return consumed, view_bytes(payload), view_bytes(trailers)

    def add(self, Py_ssize_t length):
        """Count so much content of a stream. Raises WireError when it is more than was announced."""
        if body_add(&self.body, length) < 0:
            raise self._error()

    def end(self):
        """Tell that the stream has no more content. Raises WireError when it is less than was announced."""
        if body_end(&self.body) < 0:
            raise self._error()

    def eof(self):
        """Tell that the connection ended. Raises WireError when the body was not complete."""
        if body_eof(&self.body) < 0:
            raise self._error()
