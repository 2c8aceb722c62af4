# The end of a connection that must not lose our last bytes, and must not last for ever.

from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.http.settings cimport Settings


# Send what is queued and close; a peer that takes nothing of it for `body_idle` is cut
cdef int close_gracefully(Endpoint endpoint, Settings settings) except -1

# The same for a peer that is still sending: half-close, throw its bytes away until it closes too (RFC 9112 section 9.6); `linger` at most
cdef int close_lingering(Endpoint endpoint, Settings settings) except -1


# The same for one whose last message is not whole: what was sent of it arrives, and then nothing says that this was all. Inside TLS there
# is no close_notify; in plain text `shown` says that the framing shows it, else the connection is reset once the peer has it all.
cdef int close_truncated(Endpoint endpoint, Settings settings, bint shown, object error) except -1


cdef class LingeringClose(EndpointCallbacks):
    cdef Endpoint endpoint
    cdef EndpointCallbacks previous  # who is told that the connection is gone
    cdef Settings settings
    cdef Deadline deadline
    cdef bint is_truncated           # the last message is not whole
    cdef bint resets                 # the connection is to be reset, when the peer has been sent all
    cdef object error                # what cut it
    cdef Py_ssize_t unsent           # bytes that had not been sent when it was last looked
    cdef double patience             # seconds for which they may stay as many
    cdef Py_ssize_t left             # bytes that had not been taken when the deadline was set

    cdef int wait(self) except -1
    cdef int reset_when_sent(self) except -1
