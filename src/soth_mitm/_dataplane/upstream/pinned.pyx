"""Upstream connections that are not shared, because a server takes whoever speaks over them for the user that authenticated there.

NTLM and Negotiate prove who a client is by several messages on one connection, and many servers then ask no further request on it (RFC 4559
section 6). Another client's request on such a connection would be answered in that user's name, and a message of the proof on any other
would fail. `Proxy-Authorization` does not count: it never goes upstream, so nobody authenticates by it there.
"""

cimport cython

from soth_mitm._dataplane.wire.head cimport FIELD_AUTHORIZATION, FIELD_WWW_AUTHENTICATE, Head
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.upstream.pool cimport Upstream
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
    """The same for each element of a list. A comma in a quoted string parts elements here too: at worst a connection is not shared."""
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
    if response.status == 401:
        for index in range(response.count):
            if response.fields[index].name == FIELD_WWW_AUTHENTICATE and lists_scheme(
                    response.base() + response.fields[index].value, response.fields[index].value_len):
                return True
    return False


@cython.final
cdef class Pin(EndpointCallbacks):
    """Keeps `upstream`, which its pool goes on counting, for `owner` until either ends."""

    def __cinit__(self, EndpointCallbacks owner not None, Upstream upstream not None):
        self.owner = owner
        self.upstream = upstream
        self.pool = upstream.pool

    cdef int park(self) except -1:
        self.upstream.callbacks = self
        return self.upstream.resume_reading()

    cdef Upstream take(self):
        if not self.upstream.is_live():
            return None
        self.upstream.callbacks = self.owner
        self.upstream.served += 1
        return self.upstream

    cdef int close(self) except -1:
        return self.pool.retire(self.upstream)

    # --- what the endpoint says while it is parked

    cdef int on_data(self, object endpoint) except -1:
        return self.upstream.abort(None)

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        return self.upstream.close()

    cdef int on_closed(self, object endpoint, object error) except -1:
        return self.owner.on_closed(endpoint, error)
