"""WebSocket on a stream of HTTP/2 (RFC 8441), seen as the upgrade of HTTP/1.1 that it is (RFC 6455 section 4).

An exchange, the handler and every check know the one form only: GET with Upgrade, and 101. The stream of either side translates.
The key and its answer are for HTTP/1.1 (RFC 8441 section 5): ours go to an upstream, and neither goes to a client.
"""

import os
from base64 import b64encode

from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.http1.head_parser cimport parse_request_head, parse_response_head
from soth_mitm._dataplane.memory.view cimport view_bytes
from soth_mitm._dataplane.websocket.handshake cimport accept_of, accepts_key, only_value
from soth_mitm._dataplane.wire.head cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_KEEP_ALIVE, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, HTTP_2, Field, Head,
)


cdef Head upgrade_of(Head connect):
    cdef Head head = Head.__new__(Head)
    cdef list kept = []
    cdef list lines = [b"GET " + view_bytes(connect.span(connect.target, connect.target_len)) + b" HTTP/1.1\r\n"]
    cdef bytes raw
    cdef Field* field
    cdef int i
    cdef Py_ssize_t scanned = 0
    if connect.content_length >= 0:
        return None
    for i in range(connect.count):
        field = &connect.fields[i]
        if field.hop or view_bytes(connect.span(field.line, field.name_len)).lower() == b"sec-websocket-key":
            continue
        kept.append(field.sensitive)
        lines.append(view_bytes(connect.span(field.line, field.line_len)))
    lines.append(b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: " + b64encode(os.urandom(16)) + b"\r\n\r\n")
    raw = b"".join(lines)
    if parse_request_head(head, PyBytes_AS_STRING(raw), len(raw), len(raw), connect.count + 3, &scanned) <= 0:
        return None
    for i in range(len(kept)):
        head.fields[i].sensitive = kept[i]
    head.version = HTTP_2
    return head


cdef list fields_of_acceptance(Head response):
    cdef list fields = []
    cdef bytes name
    cdef Field* field
    cdef int i
    for i in range(response.count):
        field = &response.fields[i]
        if field.hop or field.name in (FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_KEEP_ALIVE, FIELD_TRANSFER_ENCODING,
                                       FIELD_UPGRADE):
            continue
        name = view_bytes(response.span(field.line, field.name_len)).lower()
        if name not in (b"sec-websocket-accept", b"proxy-connection", b"te"):
            fields.append((name, view_bytes(response.span(field.value, field.value_len))))
    return fields


cdef Head switch_of(Head request, Head response):
    cdef Head head = Head.__new__(Head)
    cdef list lines = [
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ",
        accept_of(only_value(request, b"sec-websocket-key", 17)), b"\r\n"]
    cdef bytes raw
    cdef Py_ssize_t scanned = 0
    for name, value in fields_of_acceptance(response):
        lines.append(name + b": " + value + b"\r\n")
    lines.append(b"\r\n")
    raw = b"".join(lines)
    if parse_response_head(head, PyBytes_AS_STRING(raw), len(raw), len(raw), response.count + 3, &scanned) <= 0:
        raise AssertionError("a head of HTTP/2 is one of HTTP/1.1")
    head.version = HTTP_2
    return head


def upgrade_from(Head connect not None):
    """Return the upgrade of HTTP/1.1 that an extended CONNECT asks for, None if it has content. For tests."""
    return upgrade_of(connect)


def switch_from(Head request not None, Head response not None):
    """Return the 101 that a 2xx to an extended CONNECT means, and whether it answers the key of `request`. For tests."""
    head = switch_of(request, response)
    return head, bool(accepts_key(request, head))
