"""A message's head and its trailers as a decision of the handler changes them.

The changed head is written anew and parsed like one that came from a peer. So the other side is sent
nothing that we could not have parsed, and whatever depends on a head (its framing, whether it may be
sent twice, whether it authenticates a connection) is read from what is sent.

Lines that the decision does not name keep their bytes and their order. A field that is set keeps its
place and the spelling of its name.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from soth_mitm._dataplane.http1.encoder cimport reason_of
from soth_mitm._dataplane.http1.head_parser cimport (
    HEAD_MALFORMED, HEAD_TOO_LARGE, head_error_text, parse_request_head, parse_response_head, too_large_text,
)
from soth_mitm._dataplane.wire.fields cimport parse_field_line
from soth_mitm._dataplane.wire.head cimport TARGET_ABSOLUTE, Field, Head
from soth_mitm._dataplane.wire.head_edits cimport FieldEdit, HeadEdits
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower


# What describes a body, and is wrong of another one (RFC 9110 section 8, RFC 9530)
BODY_FIELDS = (
    b"content-length", b"transfer-encoding", b"content-encoding", b"content-md5", b"digest",
    b"content-digest", b"repr-digest", b"trailer", b"expect",
)

SIGNATURES = (b"signature", b"signature-input", b"authorization")


# The same of a response, and what would bring the old body back, or a part of it
REPLACED_FIELDS = (
    b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"trailer",
    b"etag", b"last-modified", b"accept-ranges",
)
PLAIN_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"


cdef inline bint is_named(const char* base, const Field* field, bytes lower) noexcept:
    return (field.name_len == <uint32_t>len(lower)
            and soth_equals_lower(base + field.line, PyBytes_AS_STRING(lower), len(lower)))


cdef bint stands_so(Head head, bytes lower, tuple values) except -1:
    """Tell whether the fields of that name have these values, in this order, and all go on."""
    cdef const char* base = head.base()
    cdef Field* field
    cdef int i, found = 0
    for i in range(head.count):
        field = &head.fields[i]
        if not is_named(base, field, lower):
            continue
        if field.hop or found == len(values) or values[found] != head.raw[field.value:field.value + field.value_len]:
            return False
        found += 1
    return found == len(values)


cdef bytes spelling(Head head, bytes lower, bytes name):
    """Return the name as the first field of it spells it, or `name`."""
    cdef int i
    for i in range(head.count):
        if is_named(head.base(), &head.fields[i], lower):
            return head.raw[head.fields[i].line:head.fields[i].line + head.fields[i].name_len]
    return name


cdef HeadEdits edits_without(Head head, object decision, tuple left):
    """Return the edits that a decision asks for, which also takes away the fields named in `left`."""
    cdef HeadEdits edits = HeadEdits()
    cdef bytes name, lower, value
    cdef tuple values
    for lower in left:
        edits.put(lower, None)
    for lower in decision.remove:
        edits.put(lower, None)
    for name, values in decision.set:
        lower = name.lower()
        if lower not in left and stands_so(head, lower, values):
            continue
        name = spelling(head, lower, name)
        edits.put(lower, b"".join([b"%b: %b\r\n" % (name, value) for value in values]))
    for name, value in decision.add:
        edits.put_more(name.lower(), b"%b: %b\r\n" % (name, value))
    return edits


cdef HeadEdits edits_of(Head head, object decision, bytes authority):
    cdef HeadEdits edits = edits_without(head, decision, BODY_FIELDS if decision.body is not None else ())
    if authority is not None:
        edits.put(b"host", b"%b: %b\r\n" % (spelling(head, b"host", b"Host"), authority))
    return edits


cdef bytes start_line(Head head, object decision, bytes authority):
    cdef Py_ssize_t end = head.fields[0].line if head.count else len(head.raw) - 2
    cdef bytes method = head.raw[:head.method_len] if decision.method is None else decision.method
    cdef bytes path = decision.path
    cdef bytes target = head.raw[head.target:head.target + head.target_len]
    if authority is not None and head.form == TARGET_ABSOLUTE:
        target = head.origin_target() if path is None else path
    elif path is not None:
        if path == b"*" and head.form == TARGET_ABSOLUTE:
            # it would be read as a part of the host
            raise ValueError("path: a request in absolute form has no `*`")
        target = head.raw[head.target:head.path] + path
    return b"%b %b%b" % (method, target, head.raw[head.target + head.target_len:end])


cdef bytes written(Head head, HeadEdits edits, bytes start):
    cdef const char* base = head.base()
    cdef Py_ssize_t size = len(start) + edits.size + 2
    cdef bytes room
    cdef FieldEdit edit
    cdef Field* field
    cdef char* at
    cdef int i
    for i in range(head.count):
        size += head.fields[i].line_len
    room = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(room)
    memcpy(at, PyBytes_AS_STRING(start), len(start))
    at += len(start)
    edits.begin()
    for i in range(head.count):
        field = &head.fields[i]
        edit = edits.find(base + field.line, field.name_len)
        if edit is not None:
            at = edits.write(edit, at)
        else:
            memcpy(at, base + field.line, field.line_len)
            at += field.line_len
    at = edits.write_rest(at)
    at[0] = c"\r"
    at[1] = c"\n"
    return room[:at + 2 - PyBytes_AS_STRING(room)]


cdef bint was_sensitive(Head head, Head changed, Field* field) noexcept:
    """Tell whether a field of that name was never to be indexed."""
    cdef int i
    for i in range(head.count):
        if head.fields[i].sensitive and head.fields[i].name_len == field.name_len and same_letters(
                head.base() + head.fields[i].line, changed.base() + field.line, field.name_len):
            return True
    return False


cdef bint same_letters(const char* one, const char* other, uint32_t length) noexcept:
    """Tell whether two names are the same but for their case. Both are tokens."""
    cdef uint32_t i
    cdef char a, b
    for i in range(length):
        a, b = one[i], other[i]
        if (a + 32 if c"A" <= a <= c"Z" else a) != (b + 32 if c"A" <= b <= c"Z" else b):
            return False
    return True


cdef int carry_over(Head head, Head changed, HeadEdits edits) except -1:
    """Give the fields what their bytes do not say."""
    cdef const char* base = changed.base()
    cdef int i, old = 0
    cdef int first_appended = changed.count - <int>len(edits.appended)
    cdef Field* field
    changed.version = head.version
    for i in range(changed.count):
        field = &changed.fields[i]
        if i >= first_appended or edits.find(base + field.line, field.name_len) is not None:
            # the handler's, and no Connection field of the client's takes it away
            field.hop = False
            field.sensitive = was_sensitive(head, changed, field)
            continue
        while edits.find(head.base() + head.fields[old].line, head.fields[old].name_len) is not None:
            old += 1
        field.sensitive = head.fields[old].sensitive
        # in a head that was changed before, the parser has it wrong
        field.hop = head.fields[old].hop
        old += 1
    return 0


cdef bint revives(Head head, HeadEdits edits) noexcept:
    """Tell whether a line of the handler stands for one that would stop here, named in Connection. The
    client may have guessed its bytes.
    """
    cdef FieldEdit edit
    cdef int i
    for i in range(head.count):
        if head.fields[i].hop:
            edit = edits.find(head.base() + head.fields[i].line, head.fields[i].name_len)
            if edit is not None and edit.line is not None:
                return True
    return False


cdef Head changed_head(Head head, object decision, bytes authority, Py_ssize_t limit,
                       int most_fields):
    cdef HeadEdits edits = edits_of(head, decision, authority)
    return parsed_anew(head, edits, start_line(head, decision, authority), limit, most_fields)


cdef Head parsed_anew(Head head, HeadEdits edits, bytes start, Py_ssize_t limit, int most_fields):
    cdef bytes raw = written(head, edits, start)
    cdef Head changed
    if raw == head.raw and not revives(head, edits):
        return head
    changed = parsed(raw, head.is_request, limit, most_fields)
    carry_over(head, changed, edits)
    return changed


cdef Head parsed(bytes raw, bint is_request, Py_ssize_t limit, int most_fields):
    cdef Py_ssize_t scanned = 0, used
    cdef Head changed = Head()
    if is_request:
        used = parse_request_head(changed, PyBytes_AS_STRING(raw), len(raw), limit, most_fields, &scanned)
    else:
        used = parse_response_head(changed, PyBytes_AS_STRING(raw), len(raw), limit, most_fields, &scanned)
    if used == HEAD_TOO_LARGE:
        why = too_large_text(changed, limit, most_fields).decode()
        raise ValueError(f"the changed head {why}")
    if used == HEAD_MALFORMED:
        raise ValueError(f"the changed head is malformed: {head_error_text(changed.error)}")
    if used != len(raw):
        raise ValueError("the changed head does not end where it should")
    return changed


cdef Head changed_response_head(Head head, object decision, int64_t length, Py_ssize_t limit, int most_fields):
    cdef HeadEdits edits
    cdef int status = head.status if decision.status is None else decision.status
    if decision.headers is not None:
        return own_head(status, decision.headers, decision.remove, length, limit, most_fields)
    if decision.body is None:
        edits = edits_without(head, decision, ())
    else:
        edits = edits_without(head, decision, REPLACED_FIELDS)
        if status != 206:
            edits.put(b"content-range", None)
        if length >= 0 and status not in (204, 304):
            edits.frame_with_length(length)
        else:
            edits.frame_without_content()
    return parsed_anew(head, edits, status_line(head, status), limit, most_fields)


cdef bytes status_line(Head head, int status):
    if status == head.status:
        return head.raw[:head.fields[0].line if head.count else len(head.raw) - 2]
    return b"%b%d %b\r\n" % (head.raw[:9], status, reason_of(status))


cdef Head own_head(int status, tuple headers, tuple left_out, int64_t length, Py_ssize_t limit, int most_fields):
    """Return a head of the handler's."""
    cdef bint is_bodiless = status in (204, 304)
    cdef bint is_typed = is_bodiless or b"content-type" in left_out or any([name.lower() == b"content-type" for name, _ in headers])
    cdef bytes lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    if not is_typed:
        lines += PLAIN_TEXT
    if length >= 0 and not is_bodiless:
        lines += b"Content-Length: %d\r\n" % length
    return parsed(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason_of(status), lines), False, limit, most_fields)


cdef frozenset names_decided(object decision):
    return frozenset([name.lower() for name, _ in decision.set]).union(decision.remove) or None


cdef bint is_signed(Head head, frozenset names) except -1:
    cdef Field* field
    cdef int i
    for i in range(head.count):
        field = &head.fields[i]
        for lower in SIGNATURES:
            if is_named(head.base(), field, lower) and (names is None or lower not in names) and (
                    lower != b"authorization" or head.raw.startswith(b"AWS4-HMAC", field.value)):
                return True
    return False


cdef bytes trailers_without(bytes lines, frozenset names):
    cdef list kept
    cdef Field field
    cdef uint32_t at = 0
    if lines is None or names is None:
        return lines
    kept = []
    while at < <uint32_t>len(lines):
        if parse_field_line(PyBytes_AS_STRING(lines), at, len(lines), &field):
            raise ValueError("trailers are field lines that were parsed before")
        at += field.line_len
        if lines[field.line:field.line + field.name_len].lower() not in names:
            kept.append(lines[field.line:at])
    return b"".join(kept) or None


def changed(Head head not None, decision not None, bytes authority=None, Py_ssize_t limit=65536,
            int most_fields=256):
    """Return the head that `decision` makes of `head`; `head` itself if that changes nothing. For
    tests.
    """
    return changed_head(head, decision, authority, limit, most_fields)


def changed_response(Head head not None, decision not None, int64_t length=-1, Py_ssize_t limit=65536,
                     int most_fields=256):
    """Return the head that `decision`, a `change` or `replace`, makes of a response's. For tests."""
    return changed_response_head(head, decision, length, limit, most_fields)
