"""Messages as they leave.

A head is the bytes that came, less what must stop here (RFC 9110 section 7.6), with its edits.

Kept lines are copied as they are, in their order. A head from which nothing is taken and to which
nothing is added is not copied at all. A Content-Length that repeats itself leaves as a single one,
as RFC 9110 section 8.6 orders.

Content that leaves in another framing than it came in is written in chunks (RFC 9112 section 7.1).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from http import HTTPStatus

from soth_mitm._dataplane.wire.forwards cimport forwards_left, is_forwards
from soth_mitm._dataplane.wire.head cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, HTTP_1_0,
    TARGET_ABSOLUTE, Field, Head,
)
from soth_mitm._dataplane.wire.head_edits cimport FieldEdit, HeadEdits


cdef bytes LAST_CHUNK = b"0\r\n\r\n"


# Fields that a head is sent on without, beside those that stop here
cdef enum Left:
    LEFT_LENGTH = 1
    LEFT_CODING = 2
    LEFT_FORWARDS = 4


cdef inline bint _leaves(Head head, Field* field, bint keep_upgrade, int left) noexcept:
    """Tell whether the field goes on to the other side as it stands."""
    if field.hop:
        return keep_upgrade and (field.name == FIELD_CONNECTION or field.name == FIELD_UPGRADE)
    if left == 0:
        return True
    if field.name == FIELD_CONTENT_LENGTH:
        return not left & LEFT_LENGTH
    if field.name == FIELD_TRANSFER_ENCODING:
        return not left & LEFT_CODING
    return not (left & LEFT_FORWARDS and is_forwards(head, field))


cdef bytes _assemble(Head head, bytes start, bytes added, bint keep_upgrade, int left,
                     HeadEdits edits):
    """Put a head together: start line, the fields that leave, `added` lines, the empty line.

    When `start` is None, the start line leaves as it came.
    `left` is about the fields as they came; what `edits` puts in their place is written.
    """
    cdef const char* raw = PyBytes_AS_STRING(head.raw)
    cdef Py_ssize_t start_len = head.fields[0].line if head.count else len(head.raw) - 2
    cdef Py_ssize_t size = len(start) if start is not None else start_len
    cdef bint changed = start is not None or len(added) > 0
    cdef bytes result
    cdef FieldEdit edit
    cdef Field* field
    cdef char* out
    cdef int i
    if edits is not None:
        edits.begin()
        size += edits.size
        changed = changed or edits.size > 0
    if head.length_repeated and not left & LEFT_LENGTH and (edits is None or not edits.frames):
        left |= LEFT_LENGTH
        added += b"Content-Length: %d\r\n" % head.content_length
        changed = True
    for i in range(head.count):
        field = &head.fields[i]
        if edits is not None and edits.find(raw + field.line, field.name_len) is not None:
            changed = True
        elif _leaves(head, field, keep_upgrade, left):
            size += field.line_len
        else:
            changed = True
    if not changed:
        return head.raw
    result = PyBytes_FromStringAndSize(NULL, size + len(added) + 2)
    out = PyBytes_AS_STRING(result)
    if start is not None:
        memcpy(out, PyBytes_AS_STRING(start), len(start))
        out += len(start)
    else:
        memcpy(out, raw, start_len)
        out += start_len
    for i in range(head.count):
        field = &head.fields[i]
        if edits is not None:
            edit = edits.find(raw + field.line, field.name_len)
            if edit is not None:
                out = edits.write(edit, out)
                continue
        if _leaves(head, field, keep_upgrade, left):
            memcpy(out, raw + field.line, field.line_len)
            out += field.line_len
    if edits is not None:
        out = edits.write_rest(out)
    memcpy(out, PyBytes_AS_STRING(added), len(added))
    out += len(added)
    out[0] = c"\r"
    out[1] = c"\n"
    return result


cdef bytes request_head_bytes(Head head, bint keep_upgrade, str authority, HeadEdits edits=None):
    cdef bytes start = None
    cdef bytes added = b""
    cdef int64_t forwards = forwards_left(head)
    if head.form == TARGET_ABSOLUTE or head.version == HTTP_1_0:
        start = b"%b %b HTTP/1.1\r\n" % (
            head.raw[:head.method_len],
            head.origin_target() if head.form == TARGET_ABSOLUTE
            else head.raw[head.target:head.target + head.target_len])
        if head.host < 0 and (edits is None or edits.find(b"Host", 4) is None):
            # An HTTP/1.0 client may leave Host out, and HTTP/1.1 may not
            start += b"Host: %b\r\n" % (
                head.raw[head.authority:head.authority + head.authority_len]
                if head.form == TARGET_ABSOLUTE else authority.encode())
    if forwards > 0:
        added = b"Max-Forwards: %d\r\n" % (forwards - 1)
    return _assemble(head, start, added, keep_upgrade, LEFT_FORWARDS if forwards > 0 else 0, edits)


cdef bytes response_head_bytes(Head head, bint close, bint keep_alive_10, bint keep_upgrade,
                               bint to_10, HeadEdits edits=None):
    cdef bytes start = None
    cdef bytes added = b""
    cdef int left = 0
    if head.version == HTTP_1_0:
        start = b"HTTP/1.1" + head.raw[8:head.reason + head.reason_len + 2]
    if close:
        added = b"Connection: close\r\n"
    elif keep_alive_10:
        added = b"Connection: keep-alive\r\n"
    if head.chunked and (to_10 or head.status < 200 or head.status == 204 or head.status == 304):
        left = LEFT_CODING
    elif head.content_length > 0 and (head.status < 200 or head.status == 204):
        left = LEFT_LENGTH
    return _assemble(head, start, added, keep_upgrade, left, edits)


cdef int chunk_line(char* out, Py_ssize_t length) noexcept nogil:
    cdef int digits = 1, at
    while digits < 16 and length >> 4 * digits:
        digits += 1
    for at in range(digits - 1, -1, -1):
        out[at] = b"0123456789abcdef"[length & 15]
        length >>= 4
    out[digits] = c"\r"
    out[digits + 1] = c"\n"
    return digits + 2


cdef bytes last_chunk(bytes trailers):
    return b"0\r\n%b\r\n" % trailers if trailers else LAST_CHUNK


cdef bytes own_response_bytes(int status, bytes body, object headers, bint close, bint head_only):
    # RFC 9110 sections 8.6 and 6.4.1: these have no content, and a length there would describe
    # another response
    cdef bint bodiless = status < 200 or status == 204 or status == 304
    cdef list lines = _own_lines(status, headers, bodiless)
    if not bodiless:
        lines.append(b"Content-Length: %d" % len(body))
    if close:
        lines.append(b"Connection: close")
    lines.append(b"\r\n" if bodiless or head_only else b"\r\n" + body)
    return b"\r\n".join(lines)


cdef bytes own_head_bytes(int status, object headers, bint close, bint chunked):
    cdef list lines = _own_lines(status, headers, False)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if close:
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


cdef list _own_lines(int status, object headers, bint bodiless):
    cdef bint typed = bodiless
    cdef list lines = [b"HTTP/1.1 %d %b" % (status, reason_of(status))]
    for name, value in headers or ():
        typed = typed or name.lower() == b"content-type"
        lines.append(b"%b: %b" % (name, value))
    if not typed:
        lines.append(b"Content-Type: text/plain; charset=utf-8")
    return lines


cdef bytes text_line(bytes text):
    return text if not text or text.endswith(b"\n") else text + b"\n"


cdef bytes reason_of(int status):
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


def rewrite_request(Head head not None, bint keep_upgrade=False, str authority not None="",
                    HeadEdits edits=None):
    """Return the request head that the upstream is sent; `head.raw` itself when nothing changes.
    `authority` is where it goes.
    """
    return request_head_bytes(head, keep_upgrade, authority, edits)


def rewrite_response(Head head not None, bint close=False, bint keep_alive_10=False,
                     bint keep_upgrade=False, bint to_10=False, HeadEdits edits=None):
    """Return the response head that the client is sent, which may speak HTTP/1.0; `head.raw`
    itself when nothing changes.
    """
    return response_head_bytes(head, close, keep_alive_10, keep_upgrade, to_10, edits)


def own_explanation(int status, str text not None):
    """Return a whole answer that says `text` in one line and closes the connection."""
    return own_response_bytes(
        status, text_line(text.encode("utf-8", "backslashreplace")), (), True, False)
