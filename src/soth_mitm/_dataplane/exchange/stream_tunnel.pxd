# A tunnel between two streams: bytes in both directions, back-pressure, half-close, and what is seen of the messages of a WebSocket. Either
# stream may be a whole connection. The blind tunnel between two of these is relay.pyx.

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.message_tap cimport MessageTap
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream, StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint


# A connection that has switched protocols, as a stream without framing
cdef class EndpointStream(Stream):
    cdef Settings settings
    cdef Endpoint endpoint
    cdef Py_ssize_t offset             # of what lies in the read buffer, by pieces
    cdef bint has_ended                # the peer sends no more
    cdef bint is_client                # the connection is a client's

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

    # of a WebSocket whose messages are shown; else None
    cdef ExchangeCallbacks watcher
    cdef MessageTap from_client
    cdef MessageTap from_upstream
    cdef int pressure                  # PauseReason bits: why the watcher wants less to be read
    cdef bint is_turn_due              # the loop will call take_turn()
    cdef bint is_failing               # both sides were told why it ends; what comes is dropped

    cdef int start(self) except -1
    cdef int drain(self) except -1     # end as soon as nothing moves
    cdef int stop(self, object error) except -1    # in order, or with an exception as a reset of both
    cdef int wait(self) except -1      # for the next byte
    cdef int carry(self, Stream source) except -1
    cdef int let_drain(self, Stream source, Stream sink, bint is_whole) except -1
    cdef bint has_told_end(self, Stream source) noexcept   # of the source, to the other side
    # Before start(): have the messages read. `pressure` as in on_pressure()
    cdef int watch(self, ExchangeCallbacks watcher, MessageTap from_client, MessageTap from_upstream, int pressure) except -1
    cdef int on_pressure(self, int reason, bint now) except -1
    cdef int show(self, Stream source, Stream sink, MessageTap tap) except -1
    cdef int take_later(self) except -1
    cdef int read_last(self) except -1
    cdef int fail(self, int violation, bint by_client) except -1
    cdef int close(self, int code, bytes reason) except -1         # both sides; what they still send goes nowhere
    cdef int say_closes(self, int code, bytes reason) except -1
    cdef int say_close(self, Stream sink, MessageTap tap, int code, bytes reason) except -1
    cdef int drop(self, Stream source) except -1
    cdef MessageTap tap_of(self, Stream source)
    cdef Stream across(self, Stream stream)


cdef EndpointStream new_endpoint_stream(Settings settings, Endpoint endpoint, bint is_client)
cdef StreamTunnel new_stream_tunnel(Settings settings, Stream client, Stream upstream, object on_end)
