# An endpoint as the control plane sees it, before it is handed to a tunnel, an exchange or a pool.

from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks


cdef class AwaitableEndpoint(EndpointCallbacks):
    cdef readonly object loop
    cdef Endpoint endpoint
    cdef object waiter                 # the future that changed() returned, or None
    cdef Deadline deadline
    cdef bint is_late                  # the deadline has passed
    cdef readonly bint over            # no more bytes will come
    cdef readonly object error         # what the connection was lost with
    cdef readonly object tls_error     # what the handshake failed with
    cdef readonly bint is_secured

    cdef int notify(self) except -1


# Runs the coroutine that waits for it
cdef class InlineTask(AwaitableEndpoint):
    cdef object coroutine              # None before run() and when it is over
    cdef bint is_suspended             # it awaits this
    cdef object raised                 # what to raise when it resumes, or None

    cdef int step(self) except -1      # resume it
