"""Upstream connections that are not shared, because a server takes whatever comes over them for
the user that authenticated there.

NTLM and Negotiate prove by several messages on one connection which user a client is. Many servers
then ask no further request on it (RFC 4559 section 6). Another client's request on such a
connection would be answered in that user's name. A message of the proof on any other connection
would fail. `Proxy-Authorization` does not count: it never goes upstream.
"""

from soth_mitm._dataplane.wire.head cimport FIELD_AUTHORIZATION, FIELD_WWW_AUTHENTICATE, Head
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower


cdef bint names_scheme(const char* value, Py_ssize_t length) noexcept nogil:
    """Tell whether NTLM or Negotiate is the word at `value`."""
    cdef Py_ssize_t word = 0
    while word < length and value[word] != c" " and value[word] != c"\t" and value[word] != c",":
        word += 1
    if word == 4:
        return soth_equals_lower(value, b"ntlm", 4)
    return word == 9 and soth_equals_lower(value, b"negotiate", 9)


cdef bint lists_scheme(const char* value, Py_ssize_t length) noexcept nogil:
    """The same for each element of a list. A comma in a quoted string parts elements here too: at
    worst a connection is not shared.
    """
    cdef Py_ssize_t at = 0
    while at < length:
        while at < length and (value[at] == c" " or value[at] == c"\t" or value[at] == c","):
            at += 1
        if names_scheme(value + at, length - at):
            return True
        while at < length and value[at] != c",":
            at += 1
    return False


cdef bint authenticates_connection(Head request, Head response) noexcept:
    cdef int index
    if request.find_known(FIELD_AUTHORIZATION) >= 0:
        for index in range(request.count):
            if request.fields[index].name == FIELD_AUTHORIZATION and names_scheme(
                    request.base() + request.fields[index].value, request.fields[index].value_len):
                return True
    if response is not None and response.status == 401:
        for index in range(response.count):
            if response.fields[index].name == FIELD_WWW_AUTHENTICATE and lists_scheme(
                    response.base() + response.fields[index].value,
                    response.fields[index].value_len):
                return True
    return False
