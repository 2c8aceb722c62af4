# A tunnel between two streams: bytes in both directions, back-pressure, half-close, and what is seen of the messages of a WebSocket. Either
# stream may be a whole connection. The blind tunnel between two of these is relay.pyx.

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks, TunnelCallbacks
from soth_mitm._dataplane.exchange.flow_recording cimport FlowRecording
from soth_mitm._dataplane.exchange.message_tap cimport Injection, MessageTap
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream
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


# Who has sent the first Close of a WebSocket, as counters have it
cdef enum ClosedBy:
    CLOSED_BY_CLIENT = 0
    CLOSED_BY_UPSTREAM
    CLOSED_BY_PROXY
    CLOSED_BY_NOBODY


cdef class StreamTunnel(TunnelCallbacks):
    cdef Stream client
    cdef Stream upstream
    cdef Deadline deadline
    cdef object on_end                 # called once, when both sides are gone or told to go
    cdef bint client_ended             # and the upstream was told
    cdef bint upstream_ended
    cdef bint end_waits                # the client has ended, and the upstream's connection is not told yet
    cdef bint over

    cdef FlowRecording recording       # what event sinks are told of it, or None

    # of a WebSocket whose messages are shown; else None
    cdef ExchangeCallbacks watcher
    cdef MessageTap from_client
    cdef MessageTap from_upstream
    cdef int pressure                  # PauseReason bits: why the watcher wants less to be read
    cdef bint is_turn_due              # the loop will call take_turn()
    cdef bint is_failing               # both sides were told why it ends; what comes is dropped
    cdef bint has_failed               # by a hook: the handler is shown nothing more of it
    cdef bint is_closing               # the Closes of both sides have passed
    cdef bint is_put_in_due            # the loop will call put_in()
    cdef int closed_by                 # ClosedBy
    cdef int close_code                # of that Close

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
    cdef int note_close(self, MessageTap tap, bint by_client) except -1
    cdef int take_later(self) except -1
    cdef int go_on(self, Stream source, MessageTap tap) except -1  # with what waited
    cdef bint can_inject(self, bint to_client) noexcept
    cdef bint inject(self, Injection injection, bint to_client) except -1      # false: there is no room
    cdef int read_last(self) except -1
    cdef int fail(self, int violation, bint by_client) except -1
    cdef int fail_hook(self) except -1                             # a hook failed, and its flow ends
    cdef int close(self, int code, bytes reason) except -1         # both sides; what they still send goes nowhere
    cdef int end_with(self, int code, bytes reason) except -1      # the same, behind what waits here
    cdef int say_closes(self, int code, bytes reason) except -1
    cdef int say_close(self, Stream sink, MessageTap tap, int code, bytes reason) except -1
    cdef tuple summary(self)           # messages to the upstream and to the client, ClosedBy, code; None: nothing was read
    cdef int drop(self, Stream source) except -1
    cdef MessageTap tap_of(self, Stream source)
    cdef Stream across(self, Stream stream)


cdef EndpointStream new_endpoint_stream(Settings settings, Endpoint endpoint, bint is_client)
cdef StreamTunnel new_stream_tunnel(Settings settings, Stream client, Stream upstream, object on_end)
