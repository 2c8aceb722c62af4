"""Max-Forwards, and our answer to a TRACE that ends here."""

from libc.stdint cimport int64_t

from soth_mitm._dataplane.wire.head cimport (
    FIELD_AUTHORIZATION,
    FIELD_PROXY_AUTHORIZATION,
    METHOD_OPTIONS,
    METHOD_TRACE,
    Field,
    Head,
)
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower, soth_parse_decimal


cdef int64_t forwards_left(Head head) noexcept:
    cdef int64_t number = -1
    cdef int i
    if head.method != METHOD_TRACE and head.method != METHOD_OPTIONS:
        return -1
    for i in range(head.count):
        if is_forwards(head, &head.fields[i]):
            if number >= 0:
                # two numbers are none
                return -1
            number = soth_parse_decimal(
                head.base() + head.fields[i].value, head.fields[i].value_len)
            if number < 0:
                return -1
    return number


cdef bytes traced_request(Head head):
    cdef Py_ssize_t start_len = head.fields[0].line if head.count else len(head.raw) - 2
    cdef list lines = [head.raw[:start_len]]
    cdef Field* field
    cdef int i
    for i in range(head.count):
        field = &head.fields[i]
        if (field.name != FIELD_AUTHORIZATION and field.name != FIELD_PROXY_AUTHORIZATION
                and not (field.name_len == 6
                         and soth_equals_lower(head.base() + field.line, b"cookie", 6))):
            lines.append(head.raw[field.line:field.line + field.line_len])
    return b"".join(lines) + b"\r\n"
