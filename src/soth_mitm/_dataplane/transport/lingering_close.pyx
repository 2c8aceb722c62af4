"""Closing a connection so that our last bytes arrive, within a bounded time."""

import socket
import struct
import sys

cimport cython

from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.memory.party cimport Party
from soth_mitm._dataplane.http.settings cimport Plane


if sys.platform == "win32":
    def bytes_unsent(connection):
        """Return nought: the system does not tell."""
        return 0
elif sys.platform == "darwin":
    SO_NWRITE = 0x1024

    def bytes_unsent(connection):
        """Return how many bytes of a connection its peer has not acknowledged."""
        return connection.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
else:
    import fcntl
    import termios

    def bytes_unsent(connection):
        """Return how many bytes of a connection its peer has not acknowledged."""
        return struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]


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


cdef int close_cut(Endpoint endpoint, Plane plane, bint shown, object error) except -1:
    cdef Farewell farewell
    if endpoint.gone or endpoint.closing:
        return 0
    endpoint.fault = error
    farewell = Farewell(endpoint, plane)
    farewell.is_cut = True
    farewell.error = error
    endpoint.deaf = True
    endpoint.inbox.drop()
    if endpoint.tls is not None:
        endpoint.tls.forget()
    endpoint.flush()
    if not shown and endpoint.tls is None:
        farewell.resets = True
        farewell.reset_when_sent()
    elif endpoint.told_end:
        endpoint.finish_cut()
        if not endpoint.gone:
            farewell.wait()
    else:
        endpoint.transport.write_eof()
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
        self.left = self.endpoint.transport.get_write_buffer_size()
        return self.deadline.set(self.plane.body_idle if self.left else self.plane.linger, 0)

    cdef int reset_when_sent(self) except -1:
        # a reset takes with it what the system has not sent, and there is no event that tells when it has
        cdef Py_ssize_t unsent = self.endpoint.transport.get_write_buffer_size()
        unsent += bytes_unsent(self.endpoint.transport.get_extra_info("socket"))
        if unsent != self.unsent:
            self.unsent = unsent
            self.patience = self.plane.body_idle.seconds
        if unsent == 0 or self.patience <= 0:
            return self.endpoint.fail(self.error)
        self.patience -= self.plane.settling.seconds
        return self.deadline.set(self.plane.settling, 0)

    cdef int received(self, object endpoint) except -1:
        self.endpoint.inbox.drop()
        return 0

    cdef int writable(self, object endpoint, bint now) except -1:
        return self.wait() if now and not self.resets else 0

    cdef int ended(self, object endpoint, bint clean) except -1:
        if self.resets:
            # a client that has said all may still read
            return 0
        return self.endpoint.finish_cut() if self.is_cut else self.endpoint.finish()

    cdef int lost(self, object endpoint, object error) except -1:
        self.deadline.clear()
        return self.before.lost(endpoint, error)

    cdef int late(self, int stage) except -1:
        cdef object error = None
        cdef Py_ssize_t left
        if self.resets:
            return self.reset_when_sent()
        left = self.endpoint.transport.get_write_buffer_size()
        if 0 < left < self.left:
            # slowly, but it reads
            return self.wait()
        if left:
            error = TimeoutError("the last bytes were not read in time (timeouts.body_idle_ms)")
        return self.endpoint.fail(error)
