"""Closing a connection so that our last bytes arrive, within a bounded time."""

cimport cython

from soth_mitm._dataplane.deadline cimport Deadline
from soth_mitm._dataplane.endpoint cimport Endpoint
from soth_mitm._dataplane.party cimport Party
from soth_mitm._dataplane.plane cimport Plane


cdef int close_in_order(Endpoint endpoint, Plane plane) except -1:
    if endpoint.gone or endpoint.closing:
        return 0
    endpoint.finish()
    if not endpoint.gone and endpoint.transport.get_write_buffer_size():
        return Farewell(endpoint, plane).wait()
    return 0


cdef int close_while_sending(Endpoint endpoint, Plane plane) except -1:
    cdef Farewell farewell
    if endpoint.gone or endpoint.closing:
        return 0
    if endpoint.told_end:
        return close_in_order(endpoint, plane)
    farewell = Farewell(endpoint, plane)
    # the TLS engine refuses to read what came before it had said goodbye, and that is no reason to cut the connection
    endpoint.deaf = True
    endpoint.inbox.drop()
    if endpoint.tls is not None:
        endpoint.tls.forget()
    endpoint.end_writing()
    farewell.wait()
    return endpoint.release()


def say_goodbye(Endpoint endpoint not None, Plane plane not None):
    """Close `endpoint` so that what was written last arrives, whatever its peer is still sending."""
    close_while_sending(endpoint, plane)


@cython.final
cdef class Farewell(Party):
    """The party of a connection that is being closed."""

    def __cinit__(self, Endpoint endpoint not None, Plane plane not None):
        self.endpoint = endpoint
        self.before = endpoint.party
        endpoint.party = self
        self.plane = plane
        self.deadline = Deadline(self)

    cdef int wait(self) except -1:
        # The last bytes may take as long as those before them did: what a reader takes off its end of the connection is seen here only
        # when the kernel has made much room. Once they have left, the peer has been told all, and little time to go.
        cdef bint queued = self.endpoint.transport.get_write_buffer_size() > 0
        return self.deadline.set(self.plane.body_idle if queued else self.plane.linger, 0)

    cdef int received(self, object endpoint) except -1:
        self.endpoint.inbox.drop()
        return 0

    cdef int writable(self, object endpoint, bint now) except -1:
        return self.wait() if now else 0

    cdef int ended(self, object endpoint, bint clean) except -1:
        return self.endpoint.finish()

    cdef int lost(self, object endpoint, object error) except -1:
        self.deadline.clear()
        return self.before.lost(endpoint, error)

    cdef int late(self, int stage) except -1:
        cdef object error = None
        if self.endpoint.transport.get_write_buffer_size():
            error = TimeoutError("the last bytes were not read in time (timeouts.body_idle_ms)")
        return self.endpoint.fail(error)
