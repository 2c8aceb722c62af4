"""The opening handshake of WebSocket: who may ask, what answers, and what both agree on.

The subprotocol is the business of both ends, and so is Origin. Neither is judged or changed.
"""

import hashlib
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.http.upgrade cimport names_only, names_protocol
from soth_mitm._dataplane.memory.view cimport view_bytes
from soth_mitm._dataplane.wire.head cimport METHOD_GET, Field, Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower, soth_find_not_token

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FAULT_TEXTS = (
    "",
    "the method is not GET",
    "the request has content",
    "Upgrade does not name websocket, or Connection does not name upgrade",
    "Sec-WebSocket-Version is not 13",
    "Sec-WebSocket-Key is not 16 octets in base64",
    "the response does not upgrade to websocket",
    "Sec-WebSocket-Accept does not answer the key",
    "Sec-WebSocket-Extensions is malformed",
    "an extension was not offered",
    "an extension is there more than once",
    "a parameter of permessage-deflate is not one that can be agreed on",
)

cdef enum:
    KEY_LENGTH = 24            # base64 of KEY_OCTETS
    KEY_OCTETS = 16
    LEAST_BITS = 8
    MOST_BITS = 15
    EXTENSIONS_LENGTH = 24

cdef bytes EXTENSIONS = b"sec-websocket-extensions"
cdef bytes DEFLATE = b"permessage-deflate"


cdef inline bint is_named(Head head, int i, const char* name, Py_ssize_t length) noexcept:
    cdef Field* field = &head.fields[i]
    return (not field.hop and field.name_len == length
            and soth_equals_lower(head.base() + field.line, name, length))


cdef bytes only_value(Head head, const char* name, Py_ssize_t length):
    cdef int i, found = -1
    for i in range(head.count):
        if is_named(head, i, name, length):
            if found >= 0:
                return b""
            found = i
    if found < 0:
        return b""
    return view_bytes(head.span(head.fields[found].value, head.fields[found].value_len))


cdef bytes accept_of(bytes key):
    return b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())


cdef bint accepts_key(Head request, Head response) except -1:
    cdef bytes key = only_value(request, b"sec-websocket-key", 17)
    return only_value(response, b"sec-websocket-accept", 20) == accept_of(key)


cdef bint asks_for_websocket(Head request) noexcept:
    return request.connection_upgrade and names_protocol(request, b"websocket", 9)


cdef bint is_key(bytes key) except -1:
    if len(key) != KEY_LENGTH:
        return False
    try:
        return len(a2b_base64(key, strict_mode=True)) == KEY_OCTETS
    except Base64Error:
        return False


cdef int request_fault(Head request) except -1:
    if not asks_for_websocket(request):
        return REQUEST_UPGRADE
    if request.method != METHOD_GET:
        return REQUEST_METHOD
    # to an upstream that looks for frames behind the head it would be the first of them
    if request.content_length > 0 or request.chunked:
        return REQUEST_CONTENT
    if only_value(request, b"sec-websocket-version", 21) != b"13":
        return REQUEST_VERSION
    if not is_key(only_value(request, b"sec-websocket-key", 17)):
        return REQUEST_KEY
    return HANDSHAKE_OK


cdef int response_fault(Head request, Head response) except -1:
    if not response.connection_upgrade or not names_only(response, b"websocket", 9):
        return RESPONSE_UPGRADE
    return HANDSHAKE_OK if accepts_key(request, response) else RESPONSE_ACCEPT


# ---- extensions (RFC 6455 section 9.1)


@cython.final
cdef class Extension:
    """One element of a list: its name, its parameters, and where it stands in the value."""

    cdef bytes name            # in lower case, as those of the parameters
    cdef list parameters       # (name, value or None)
    cdef Py_ssize_t begin
    cdef Py_ssize_t end


cdef inline Py_ssize_t skip_space(const char* p, Py_ssize_t at, Py_ssize_t n) noexcept nogil:
    while at < n and (p[at] == c" " or p[at] == c"\t"):
        at += 1
    return at


cdef inline Py_ssize_t skip_token(const char* p, Py_ssize_t at, Py_ssize_t n) noexcept nogil:
    return at + <Py_ssize_t>soth_find_not_token(p + at, n - at)


cdef Py_ssize_t read_quoted(const char* p, Py_ssize_t at, Py_ssize_t n, bytearray value) except -2:
    """Read the quoted string at `at` into `value`; where it ends, or -1. It quotes a token."""
    at += 1
    while at < n and p[at] != c'"':
        if p[at] == c"\\":
            at += 1
        if at == n or soth_find_not_token(p + at, 1) == 0:
            return -1
        value.append(p[at])
        at += 1
    return at + 1 if at < n and value else -1


cdef Py_ssize_t read_parameter(const char* p, Py_ssize_t at, Py_ssize_t n,
                               list parameters) except -2:
    """Read `; name` or `; name=value` at `at`; where it ends, or -1."""
    cdef Py_ssize_t begin = skip_space(p, at + 1, n), end
    cdef bytearray quoted = bytearray()
    cdef bytes name
    at = skip_token(p, begin, n)
    if at == begin:
        return -1
    name = p[begin:at].lower()
    end = at
    at = skip_space(p, at, n)
    if at == n or p[at] != c"=":
        parameters.append((name, None))
        return end
    begin = skip_space(p, at + 1, n)
    if begin < n and p[begin] == c'"':
        at = read_quoted(p, begin, n, quoted)
        parameters.append((name, bytes(quoted)))
        return at
    at = skip_token(p, begin, n)
    parameters.append((name, p[begin:at]))
    return at if at > begin else -1


cdef list read_extensions(bytes value):
    """Return the elements of one field's value as Extension; None: it is malformed."""
    cdef const char* p = PyBytes_AS_STRING(value)
    cdef Py_ssize_t n = len(value), at = 0
    cdef list found = []
    cdef Extension extension
    while True:
        # elements may be empty (RFC 9110 section 5.6.1)
        while at < n and (p[at] == c"," or p[at] == c" " or p[at] == c"\t"):
            at += 1
        if at == n:
            return found
        extension = Extension.__new__(Extension)
        extension.parameters = []
        extension.begin = at
        at = skip_token(p, at, n)
        extension.name = p[extension.begin:at].lower()
        while True:
            extension.end = at
            at = skip_space(p, at, n)
            if at == n or p[at] != c";":
                break
            at = read_parameter(p, at, n, extension.parameters)
            if at < 0:
                return None
        if not extension.name or (at < n and p[at] != c","):
            return None
        found.append(extension)


cdef int read_bits(bytes text) noexcept:
    """Return the number of bits of a window that `text` says, 0 if it says none."""
    cdef int bits
    if text is None or not 1 <= len(text) <= 2 or not text.isdigit() or text[0] == c"0":
        return 0
    bits = text[0] - c"0"
    if len(text) == 2:
        bits = bits * 10 + text[1] - c"0"
    return bits if LEAST_BITS <= bits <= MOST_BITS else 0


cdef int read_deflate(list parameters, Agreement* agreement) except -1:
    """Read the parameters of a response: 0, or DEFLATE_PARAMETER."""
    cdef set seen = set()
    cdef bytes name, value
    cdef int bits
    for name, value in parameters:
        if name in seen:
            return DEFLATE_PARAMETER
        seen.add(name)
        bits = read_bits(value)
        if name == b"client_no_context_takeover" and value is None:
            agreement.client_takeover = False
        elif name == b"server_no_context_takeover" and value is None:
            agreement.upstream_takeover = False
        elif name == b"client_max_window_bits" and bits:
            agreement.client_bits = bits
        elif name == b"server_max_window_bits" and bits:
            agreement.upstream_bits = bits
        else:
            return DEFLATE_PARAMETER
    return HANDSHAKE_OK


cdef bint offers_deflate(Head request) except -1:
    cdef Extension extension
    cdef int i
    for i in range(request.count):
        if is_named(request, i, EXTENSIONS, EXTENSIONS_LENGTH):
            value = view_bytes(request.span(request.fields[i].value, request.fields[i].value_len))
            for extension in read_extensions(value) or ():
                if extension.name == DEFLATE:
                    return True
    return False


cdef int judge_extensions(Head request, Head response, Agreement* agreement) except -1:
    cdef Extension extension
    cdef list extensions
    cdef int i, fault
    for i in range(response.count):
        if not is_named(response, i, EXTENSIONS, EXTENSIONS_LENGTH):
            continue
        extensions = read_extensions(
            view_bytes(response.span(response.fields[i].value, response.fields[i].value_len)))
        if extensions is None:
            return EXTENSIONS_MALFORMED
        for extension in extensions:
            if extension.name != DEFLATE:
                return EXTENSION_NOT_OFFERED
            if agreement.compresses:
                return EXTENSION_TWICE
            fault = read_deflate(extension.parameters, agreement)
            if fault:
                return fault
            agreement.compresses = True
    if agreement.compresses and not offers_deflate(request):
        return EXTENSION_NOT_OFFERED
    return HANDSHAKE_OK


cdef int read_agreement(Head request, Head response, Agreement* agreement) except -1:
    cdef int fault
    agreement.compresses = agreement.is_foreign = False
    agreement.client_takeover = agreement.upstream_takeover = True
    agreement.client_bits = agreement.upstream_bits = MOST_BITS
    fault = judge_extensions(request, response, agreement)
    agreement.is_foreign = fault != HANDSHAKE_OK
    return fault


cdef int remove_other_offers(Head request, HeadEdits edits) except -1:
    cdef Extension extension
    cdef list extensions, kept = []
    cdef bytes name = b"", value
    cdef int i, removed = 0
    for i in range(request.count):
        if not is_named(request, i, EXTENSIONS, EXTENSIONS_LENGTH):
            continue
        if not name:
            name = view_bytes(request.span(request.fields[i].line, request.fields[i].name_len))
        value = view_bytes(request.span(request.fields[i].value, request.fields[i].value_len))
        extensions = read_extensions(value)
        if extensions is None:
            removed += 1
            continue
        for extension in extensions:
            if extension.name == DEFLATE:
                kept.append(value[extension.begin:extension.end])
            else:
                removed += 1
    if removed:
        edits.put(EXTENSIONS, name + b": " + b", ".join(kept) + b"\r\n" if kept else None)
    return removed


cdef str handshake_fault_text(int fault):
    return FAULT_TEXTS[fault]
