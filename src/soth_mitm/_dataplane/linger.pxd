# The end of a connection that must not lose our last bytes, and must not last for ever.

from soth_mitm._dataplane.deadline cimport Deadline
from soth_mitm._dataplane.endpoint cimport Endpoint
from soth_mitm._dataplane.party cimport Party
from soth_mitm._dataplane.plane cimport Plane


# Send what is queued and close; a peer that takes nothing of it for the plane's `body_idle` is cut
cdef int close_in_order(Endpoint endpoint, Plane plane) except -1

# The same for a peer that is still sending: half-close, throw its bytes away until it closes too (RFC 9112 section 9.6), for `linger` at most
cdef int close_while_sending(Endpoint endpoint, Plane plane) except -1


cdef class Farewell(Party):
    cdef Endpoint endpoint
    cdef Party before              # who is told that the connection is gone
    cdef Plane plane
    cdef Deadline deadline

    cdef int wait(self) except -1
