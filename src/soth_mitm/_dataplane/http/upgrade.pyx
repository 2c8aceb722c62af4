"""Which protocols a connection may be switched to by 101 (RFC 9110 section 7.8).

After a 101 nobody looks at the bytes any more. So no upgrade is relayed that offers HTTP, TLS or a tunnel to somewhere else: each would
carry requests past the decision. Such a request goes on as if it had not asked, which the section allows, all its offers included: a list
with one of these in it is no list that a client of another protocol sends.
"""

from soth_mitm._dataplane.wire.head cimport FIELD_UPGRADE, Head
from soth_mitm._dataplane.wire.scan cimport soth_equals_fold, soth_equals_lower, soth_find_not_token
from soth_mitm._dataplane.memory.view cimport View, view_of


cdef int _next_protocol(View* rest, View* name) noexcept nogil:
    """Take the next protocol off the list `rest`: 1 with its name, version excluded, 0 at the end, -1 when it is malformed."""
    cdef const char* data = rest.ptr
    cdef Py_ssize_t length = rest.len, at = 0, version
    while at < length and (data[at] == c"," or data[at] == c" " or data[at] == c"\t"):
        at += 1
    if at == length:
        return 0
    name[0] = view_of(data + at, soth_find_not_token(data + at, length - at))
    if name.len == 0:
        return -1
    at += name.len
    if at < length and data[at] == c"/":
        at += 1
        version = soth_find_not_token(data + at, length - at)
        if version == 0:
            return -1
        at += version
    while at < length and (data[at] == c" " or data[at] == c"\t"):
        at += 1
    if at < length and data[at] != c",":
        return -1
    rest[0] = view_of(data + at, length - at)
    return 1


cdef bint _passes_the_policy(View name) noexcept nogil:
    if name.len > 8 and soth_equals_lower(name.ptr, b"connect-", 8):
        # connect-udp (RFC 9298), connect-ip (RFC 9484) and those to come: CONNECT by another name
        return True
    if name.len == 4:
        return soth_equals_lower(name.ptr, b"http", 4)
    if name.len == 3:
        return soth_equals_lower(name.ptr, b"h2c", 3) or soth_equals_lower(name.ptr, b"tls", 3)
    return name.len == 2 and (soth_equals_lower(name.ptr, b"h2", 2) or soth_equals_lower(name.ptr, b"h3", 2))


cdef int _protocols(Head head, View* names) noexcept:
    """Fill in the names of the protocols that `head` lists; how many, or -1 when they are over MAX_PROTOCOLS or one is malformed."""
    cdef View rest, name
    cdef int i, step, count = 0
    for i in range(head.count):
        if head.fields[i].name != FIELD_UPGRADE:
            continue
        rest = head.span(head.fields[i].value, head.fields[i].value_len)
        while True:
            step = _next_protocol(&rest, &name)
            if step == 0:
                break
            if step < 0 or count == MAX_PROTOCOLS:
                return -1
            names[count] = name
            count += 1
    return count


cdef bint may_switch(Head request) noexcept:
    cdef View names[MAX_PROTOCOLS]
    cdef int i, count = _protocols(request, names)
    cdef bint relayed = count > 0
    for i in range(count):
        if _passes_the_policy(names[i]):
            relayed = False
    return relayed


cdef bint names_protocol(Head head, const char* name, Py_ssize_t length) noexcept:
    cdef View names[MAX_PROTOCOLS]
    cdef int i
    for i in range(_protocols(head, names)):
        if names[i].len == length and soth_equals_lower(names[i].ptr, name, length):
            return True
    return False


cdef bint names_only(Head head, const char* name, Py_ssize_t length) noexcept:
    cdef View names[MAX_PROTOCOLS]
    return _protocols(head, names) == 1 and names_protocol(head, name, length)


cdef bint was_offered(Head request, Head response) noexcept:
    cdef View offered[MAX_PROTOCOLS]
    cdef View chosen[MAX_PROTOCOLS]
    cdef int offers = _protocols(request, offered), choices = _protocols(response, chosen), i, j
    cdef bint found
    for i in range(choices):
        found = False
        for j in range(offers):
            if offered[j].len == chosen[i].len and soth_equals_fold(offered[j].ptr, chosen[i].ptr, chosen[i].len):
                found = True
        if not found:
            return False
    return choices > 0
