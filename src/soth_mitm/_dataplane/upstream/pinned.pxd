# An upstream connection that belongs to one client connection, because the server knows the client by it (NTLM, Negotiate).

from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.upstream.pool cimport OriginPool, Upstream


# Does this exchange of messages begin or continue an authentication of the connection that it went over?
cdef bint authenticates_connection(Head request, Head response) noexcept


cdef class Pin(EndpointCallbacks):
    cdef EndpointCallbacks owner                   # told on_closed(upstream) when the connection is gone while it is parked
    cdef Upstream upstream
    cdef OriginPool pool               # where it still counts, and whose requests go over it

    # Between two requests: silent, or it is closed
    cdef int park(self) except -1
    # For the owner's next request; None when it has ended meanwhile
    cdef Upstream take(self)
    # The owner needs it no more
    cdef int close(self) except -1
