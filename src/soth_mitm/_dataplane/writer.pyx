"""Heads as they leave: the bytes that came, less what must stop here (RFC 9110 section 7.6).

Kept lines are copied as they are, in their order; a head from which nothing is taken and to which nothing is added is not copied at all. A
Content-Length that repeats itself leaves as a single one, as RFC 9110 section 8.6 orders.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

from http import HTTPStatus

from soth_mitm._dataplane.head cimport FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_UPGRADE, TARGET_ABSOLUTE, Field, Head


cdef inline bint _leaves(Head head, Field* field, bint keep_upgrade) noexcept nogil:
    """Tell whether the field goes on to the other side as it stands."""
    if field.hop:
        return keep_upgrade and (field.name == FIELD_CONNECTION or field.name == FIELD_UPGRADE)
    return not (head.length_repeated and field.name == FIELD_CONTENT_LENGTH)


cdef bytes _assemble(Head head, bytes start, bytes added, bint keep_upgrade):
    """Put a head together: `start` (None: the start line as it came), the fields that leave, `added` lines, the empty line."""
    cdef const char* raw = PyBytes_AS_STRING(head.raw)
    cdef Py_ssize_t start_len = head.fields[0].line if head.count else len(head.raw) - 2
    cdef Py_ssize_t size = len(start) if start is not None else start_len
    cdef bint changed = start is not None or len(added) > 0
    cdef bytes result
    cdef char* out
    cdef int i
    if head.length_repeated:
        added += b"Content-Length: %d\r\n" % head.content_length
    for i in range(head.count):
        if _leaves(head, &head.fields[i], keep_upgrade):
            size += head.fields[i].line_len
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
        if _leaves(head, &head.fields[i], keep_upgrade):
            memcpy(out, raw + head.fields[i].line, head.fields[i].line_len)
            out += head.fields[i].line_len
    memcpy(out, PyBytes_AS_STRING(added), len(added))
    out += len(added)
    out[0] = c"\r"
    out[1] = c"\n"
    return result


cdef bytes request_head_bytes(Head head, bint keep_upgrade):
    cdef bytes start
    if head.form != TARGET_ABSOLUTE:
        return _assemble(head, None, b"", keep_upgrade)
    start = b"%b %b HTTP/1.%d\r\n" % (head.raw[:head.method_len], head.origin_target(), head.minor)
    if head.host < 0:
        # An HTTP/1.0 client may leave Host out; the target that named the host is gone now (RFC 9112 section 3.2.2)
        start += b"Host: %b\r\n" % head.raw[head.authority:head.authority + head.authority_len]
    return _assemble(head, start, b"", keep_upgrade)


cdef bytes response_head_bytes(Head head, bint close, bint keep_alive_10, bint keep_upgrade):
    cdef bytes start = None
    cdef bytes added = b""
    if head.minor == 0:
        start = b"HTTP/1.1" + head.raw[8:head.reason + head.reason_len + 2]
    if close:
        added = b"Connection: close\r\n"
    elif keep_alive_10:
        added = b"Connection: keep-alive\r\n"
    return _assemble(head, start, added, keep_upgrade)


cdef bytes own_response_bytes(int status, bytes body, object headers, bint close, bint head_only):
    # RFC 9110 sections 8.6 and 6.4.1: these have no content, and a length there would describe another response
    cdef bint bodiless = status < 200 or status == 204 or status == 304
    cdef bint typed = False
    cdef list lines = [b"HTTP/1.1 %d %b" % (status, _reason(status))]
    for name, value in headers or ():
        typed = typed or name.lower() == b"content-type"
        lines.append(b"%b: %b" % (name, value))
    if not bodiless:
        if not typed:
            lines.append(b"Content-Type: text/plain; charset=utf-8")
        lines.append(b"Content-Length: %d" % len(body))
    if close:
        lines.append(b"Connection: close")
    lines.append(b"\r\n" if bodiless or head_only else b"\r\n" + body)
    return b"\r\n".join(lines)


cdef bytes _reason(int status):
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


def rewrite_request(Head head not None, bint keep_upgrade=False):
    """Return the request head that the upstream is sent; `head.raw` itself when nothing changes."""
    return request_head_bytes(head, keep_upgrade)


def rewrite_response(Head head not None, bint close=False, bint keep_alive_10=False, bint keep_upgrade=False):
    """Return the response head that the client is sent; `head.raw` itself when nothing changes."""
    return response_head_bytes(head, close, keep_alive_10, keep_upgrade)


def own_response(int status, bytes body not None=b"", headers=(), bint close=False, bint head_only=False):
    """Return a whole answer of the proxy's own; `headers` are (name, value) pairs of bytes that were validated before."""
    return own_response_bytes(status, body, headers, close, head_only)
