# One client connection that speaks HTTP/1, the response's way: from the upstream to the client, as it comes.

from soth_mitm._dataplane.exchange.conversation cimport Conversation
from soth_mitm._dataplane.wire.head cimport Head


# What answers the current request, moved on as far as it goes
cdef class Responding(Conversation):
    cdef Py_ssize_t upstream_scanned   # of the upstream's read buffer, for the head
    cdef int interims                  # interim responses to the current request

    cdef int read_response_head(self) except -1        # and interim ones before it
    cdef int begin_response(self, Head head) except -1
    cdef int switch_protocols(self, Head head) except -1
    cdef int relay_response(self) except -1
