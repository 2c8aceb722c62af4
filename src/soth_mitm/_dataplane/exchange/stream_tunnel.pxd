# A tunnel between two streams, of which at least one shares its connection with others: bytes in both directions, back-pressure,
# half-close. The tunnel between two whole connections is relay.pyx.

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream, StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint


# An upstream's connection that has switched protocols, as a stream without framing
cdef class EndpointStream(Stream):
    cdef Settings settings
    cdef Endpoint endpoint
    cdef Py_ssize_t offset             # of what lies in the read buffer, by pieces
    cdef bint has_ended                # the peer sends no more

    # Hear of the endpoint from now on. What it has to say at once is told
    cdef int begin(self) except -1


cdef class EndpointOwner(HttpConnection):
    cdef EndpointStream stream         # None: the connection is gone


cdef class StreamTunnel(StreamCallbacks):
    cdef Stream client
    cdef Stream upstream
    cdef Deadline deadline
    cdef object on_end                 # called once, when both sides are gone or told to go
    cdef bint client_ended             # and the upstream was told
    cdef bint upstream_ended
    cdef bint end_waits                # the client has ended, and the upstream's connection is not told yet
    cdef bint over

    cdef int start(self) except -1
    cdef int drain(self) except -1     # end as soon as nothing moves
    cdef int stop(self, object error) except -1    # in order, or with an exception as a reset of both
    cdef int wait(self) except -1      # for the next byte
    cdef int carry(self, Stream source) except -1
    cdef Stream across(self, Stream stream)


cdef EndpointStream new_endpoint_stream(Settings settings, Endpoint endpoint)
cdef StreamTunnel new_stream_tunnel(Settings settings, Stream client, Stream upstream, object on_end)
