# The end of a connection that must not lose our last bytes, and must not last for ever.

from soth_mitm._dataplane.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.endpoint cimport Endpoint
from soth_mitm._dataplane.party cimport Party


# Send what is queued and close; a peer that does not take it within the queue's duration is cut
cdef int close_in_order(Endpoint endpoint, DeadlineQueue queue) except -1

# The same for a peer that is still sending: half-close, throw its bytes away until it closes too (RFC 9112 section 9.6)
cdef int close_while_sending(Endpoint endpoint, DeadlineQueue queue) except -1


cdef class Farewell(Party):
    cdef Endpoint endpoint
    cdef Party before              # who is told that the connection is gone
    cdef Deadline deadline
    cdef DeadlineQueue queue
    cdef Py_ssize_t queued         # bytes that were not taken when the deadline was set
