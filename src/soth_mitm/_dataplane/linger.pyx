"""Closing a connection so that our last bytes arrive, within a bounded time."""

cimport cython

from soth_mitm._dataplane.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.endpoint cimport Endpoint
from soth_mitm._dataplane.party cimport Party


cdef int close_in_order(Endpoint endpoint, DeadlineQueue queue) except -1:
    if endpoint.gone or endpoint.closing:
        return 0
    endpoint.finish()
    if not endpoint.gone and endpoint.transport.get_write_buffer_size():
        Farewell(endpoint, queue)
    return 0


cdef int close_while_sending(Endpoint endpoint, DeadlineQueue queue) except -1:
    if endpoint.gone or endpoint.closing:
        return 0
    if endpoint.told_end:
        return close_in_order(endpoint, queue)
    Farewell(endpoint, queue)
    # the TLS engine refuses to read what came before it had said goodbye, and that is no reason to cut the connection
    endpoint.deaf = True
    endpoint.inbox.drop()
    if endpoint.tls is not None:
        endpoint.tls.forget()
    endpoint.end_writing()
    return endpoint.release()


def say_goodbye(Endpoint endpoint not None, DeadlineQueue queue not None):
    """Close `endpoint` so that what was written last arrives, whatever its peer is still sending."""
    close_while_sending(endpoint, queue)


@cython.final
cdef class Farewell(Party):
    """The party of a connection that is being closed."""

    def __cinit__(self, Endpoint endpoint not None, DeadlineQueue queue not None):
        self.endpoint = endpoint
        self.before = endpoint.party
        endpoint.party = self
        self.queue = queue
        self.queued = endpoint.transport.get_write_buffer_size()
        self.deadline = Deadline(self)
        self.deadline.set(queue, 0)

    cdef int received(self, object endpoint) except -1:
        self.endpoint.inbox.drop()
        return 0

    cdef int ended(self, object endpoint, bint clean) except -1:
        return self.endpoint.finish()

    cdef int lost(self, object endpoint, object error) except -1:
        self.deadline.clear()
        return self.before.lost(endpoint, error)

    cdef int late(self, int stage) except -1:
        cdef Py_ssize_t queued = self.endpoint.transport.get_write_buffer_size()
        if queued < self.queued:
            # slow, but reading
            self.queued = queued
            return self.deadline.set(self.queue, 0)
        return self.endpoint.fail(None)
