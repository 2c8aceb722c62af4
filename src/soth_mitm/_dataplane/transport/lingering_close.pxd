# Closing a connection so that our last bytes arrive, within a bounded time.

from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.http.settings cimport Settings


# Send what is queued and close. Abort when the peer takes nothing of it for `body_idle`
cdef int close_gracefully(Endpoint endpoint, Settings settings) except -1

# The same for a peer that is still sending: half-close, then discard its bytes until it closes too,
# for `linger` at most (RFC 9112 section 9.6)
cdef int close_lingering(Endpoint endpoint, Settings settings) except -1


# The same after an incomplete message: what was sent of it arrives, and its end does not look like
# a complete message. In TLS there is no close_notify. In plain text, `shown` says that the framing
# shows that the message is incomplete; otherwise the connection is reset once the peer has received
# everything.
cdef int close_truncated(Endpoint endpoint, Settings settings, bint shown, object error) except -1


# Reset the connection once everything that was sent before has arrived
cdef int close_reset(Endpoint endpoint, Settings settings) except -1


cdef class LingeringClose(EndpointCallbacks):
    cdef Endpoint endpoint
    cdef EndpointCallbacks previous  # gets on_closed()
    cdef Settings settings
    cdef Deadline deadline
    cdef bint is_truncated           # the last message is incomplete
    cdef bint resets                 # reset the connection once everything is sent
    cdef object error                # why it was truncated
    cdef Py_ssize_t unsent           # unsent bytes at the last look
    cdef double patience             # seconds left for them to become fewer
    cdef Py_ssize_t left             # unsent bytes when the deadline was set

    cdef int wait(self) except -1
    cdef int reset_when_sent(self) except -1
