# A socket that we connected to an upstream.

from libc.stdint cimport intptr_t

from soth_mitm._dataplane.transport.endpoint cimport Endpoint


cdef class OutboundEndpoint(Endpoint):
    cdef intptr_t socket               # the system's handle, valid until `closing`
    # what the control plane knows of it: TLS version, certificate digest, ...
    cdef public object facts

    # Is it open, and silent? To be asked while nothing uses it, right before it is used again
    cdef int is_live(self) except -1
    # Deliver what lies unread in the socket, while others use it; False: it has ended
    cdef bint read_once(self) except -1
    cdef int take_unasked(self, const char* data, Py_ssize_t count) except -1
    # Deliver what lies unread in the socket of a broken connection, as far as the callbacks take it
    cdef int read_last_words(self) except -1
