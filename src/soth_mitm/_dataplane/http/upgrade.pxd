# Which protocols a connection may be switched to by 101 (RFC 9110 section 7.8).

from soth_mitm._dataplane.wire.head cimport Head


cdef enum:
    MAX_PROTOCOLS = 16     # in all Upgrade fields of a head together


# Is the upgrade that `request` asks for one to relay? Where it is not, nothing of it leaves with the request.
cdef bint may_switch(Head request) noexcept

# Is a protocol among those that Upgrade lists? Is it the only one? Its name is in lower case; a version is not looked at.
cdef bint names_protocol(Head head, const char* name, Py_ssize_t length) noexcept
cdef bint names_only(Head head, const char* name, Py_ssize_t length) noexcept

# Does the 101 in `response` name protocols, and only such as `request` offers?
cdef bint was_offered(Head request, Head response) noexcept
