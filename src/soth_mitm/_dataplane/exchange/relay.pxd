# A tunnel: two endpoints, bytes in both directions, back-pressure, half-close. It knows nothing of what it relays; who does may have it
# wait with the client's direction until the first bytes there have been examined.

from soth_mitm._dataplane.exchange.flow_recording cimport FlowRecording
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.http.settings cimport Settings


cdef class Tunnel(EndpointCallbacks):
    cdef Settings settings
    cdef Endpoint client
    cdef Endpoint upstream
    cdef Deadline deadline
    cdef EndpointCallbacks examiner            # hears of the client in our place until start(), or None
    cdef object on_end             # called once, when both sides are gone or told to go
    cdef FlowRecording recording   # what event sinks are told of it, or None
    cdef int ends                  # how many sides have said that they send no more
    cdef bint over

    cdef int wait(self) except -1  # for the next byte
    cdef Endpoint across(self, object endpoint)
    cdef int forward(self, Endpoint source) except -1
    cdef int stop(self, object error) except -1
