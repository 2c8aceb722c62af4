"""Closing a connection so that our last bytes arrive, within a bounded time."""

import socket
import struct
import sys

cimport cython

from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.http.settings cimport Settings


if sys.platform == "win32":
    def bytes_unsent(connection):
        """Return 0: the system does not tell."""
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
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return struct.unpack("i", answer)[0]


cdef int close_gracefully(Endpoint endpoint, Settings settings) except -1:
    if endpoint.is_closing():
        return 0
    endpoint.close()
    if not endpoint.is_gone() and endpoint.transport.get_write_buffer_size():
        return LingeringClose(endpoint, settings).wait()
    return 0


cdef int close_lingering(Endpoint endpoint, Settings settings) except -1:
    cdef LingeringClose lingering
    if endpoint.is_closing():
        return 0
    if endpoint.has_told_eof():
        return close_gracefully(endpoint, settings)
    lingering = LingeringClose(endpoint, settings)
    # the TLS engine refuses to read after its close_notify, which is no reason to abort
    endpoint.discarding = True
    endpoint.read_buffer.drop()
    if endpoint.tls is not None:
        endpoint.tls.forget()
    endpoint.end_writing()
    lingering.wait()
    return endpoint.resume_all()


cdef int close_truncated(Endpoint endpoint, Settings settings, bint shown, object error) except -1:
    cdef LingeringClose lingering
    if endpoint.is_closing():
        return 0
    endpoint.close_error = error
    lingering = last_flush(endpoint, settings)
    lingering.is_truncated = True
    lingering.error = error
    if not shown and endpoint.tls is None:
        lingering.resets = True
        lingering.reset_when_sent()
    elif endpoint.has_told_eof():
        endpoint.close_truncated()
        if not endpoint.is_gone():
            lingering.wait()
    else:
        endpoint.transport.write_eof()
        lingering.wait()
    return endpoint.resume_all()


cdef int close_reset(Endpoint endpoint, Settings settings) except -1:
    cdef LingeringClose lingering
    if endpoint.is_closing():
        return 0
    lingering = last_flush(endpoint, settings)
    lingering.resets = True
    lingering.reset_when_sent()
    return endpoint.resume_all()


cdef LingeringClose last_flush(Endpoint endpoint, Settings settings):
    """Give the transport what is queued, and discard from now on what comes."""
    cdef LingeringClose lingering = LingeringClose(endpoint, settings)
    endpoint.discarding = True
    endpoint.read_buffer.drop()
    if endpoint.tls is not None:
        endpoint.tls.forget()
    endpoint.flush()
    return lingering


def linger_and_close(Endpoint endpoint not None, Settings settings not None):
    """Close `endpoint` so that the last bytes arrive although the peer is still sending."""
    close_lingering(endpoint, settings)


@cython.final
cdef class LingeringClose(EndpointCallbacks):
    """The callbacks of a connection that is being closed."""

    def __cinit__(self, Endpoint endpoint not None, Settings settings not None):
        self.endpoint = endpoint
        self.previous = endpoint.callbacks
        endpoint.callbacks = self
        self.settings = settings
        self.deadline = Deadline(self)

    cdef int wait(self) except -1:
        # The last bytes may take as long as those before: the transport sees that the peer reads
        # only when the kernel has made much room. Once they are sent, the peer gets the shorter
        # `last_wait`.
        self.left = self.endpoint.transport.get_write_buffer_size()
        return self.deadline.set(
            self.settings.body_idle if self.left else self.settings.last_wait(), 0)

    cdef int reset_when_sent(self) except -1:
        # a reset discards what the system has not sent, and no event says when it has sent
        # everything
        cdef Py_ssize_t unsent = self.endpoint.transport.get_write_buffer_size()
        unsent += bytes_unsent(self.endpoint.transport.get_extra_info("socket"))
        if unsent != self.unsent:
            self.unsent = unsent
            self.patience = self.settings.body_idle.seconds
        if unsent == 0 or self.patience <= 0:
            self.endpoint.reset_on_close()
            return self.endpoint.abort(self.error)
        self.patience -= self.settings.settling.seconds
        return self.deadline.set(self.settings.settling, 0)

    cdef int on_data(self, object endpoint) except -1:
        self.endpoint.read_buffer.drop()
        return 0

    cdef int on_writable(self, object endpoint, bint now) except -1:
        return self.wait() if now and not self.resets else 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        if self.resets:
            # a client that has ended its direction may still read
            return 0
        return self.endpoint.close_truncated() if self.is_truncated else self.endpoint.close()

    cdef int on_closed(self, object endpoint, object error) except -1:
        self.deadline.clear()
        return self.previous.on_closed(endpoint, error)

    cdef int on_deadline(self, int stage) except -1:
        cdef object error = None
        cdef Py_ssize_t left
        if self.resets:
            return self.reset_when_sent()
        left = self.endpoint.transport.get_write_buffer_size()
        if 0 < left < self.left:
            # the peer reads, slowly
            return self.wait()
        if left:
            error = TimeoutError("the last bytes were not read in time (timeouts.body_idle_ms)")
        return self.endpoint.abort(error)
