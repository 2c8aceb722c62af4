# A client's connection that speaks HTTP/2: each of its streams is an Exchange.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.exchange cimport Exchange
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection
from soth_mitm._dataplane.http2.session_stream cimport SessionStream
from soth_mitm._dataplane.http2.stream cimport Http2Stream, SessionDriver
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.wire.head cimport Head


cdef class Http2ServerStream


cdef class Http2ServerConnection(HttpConnection):
    cdef Settings settings
    cdef ServerDriver driver           # None: it has not begun
    cdef object on_end                 # called once: the connection is gone and every hook has returned
    cdef object router                 # router(None, authority) -> Route
    cdef Route route                   # where requests for `routed` go
    cdef bytes routed                  # None: the router is asked again
    cdef Py_ssize_t open_streams       # that have something to send, or may have
    cdef Py_ssize_t unsettled          # exchanges whose last hook has not returned
    cdef bint is_over                  # nothing is read or written any more
    cdef bint end_reported             # on_end was called
    cdef Deadline idle_deadline        # while no stream is open
    cdef set tunnels                   # one for each open WebSocket
    cdef Deadline drain_deadline       # until the second GOAWAY

    cdef Http2ServerStream stream_of_flow(self, int64_t flow_id)        # None: it is over
    cdef int open_exchange(self, SessionStream session_stream, Head head, bint https, bint is_end) except -1
    cdef int find_route(self, Head head) except -1
    cdef int stream_left(self) except -1
    cdef int check_leaving(self) except -1     # draining, and the last stream has ended
    cdef int leave(self) except -1             # what was written arrives, and then the connection is closed
    cdef int stop(self, object error) except -1
    cdef int check_end(self) except -1


cdef class ServerDriver(SessionDriver):
    pass


cdef class Http2ServerStream(Http2Stream):
    cdef Http2ServerConnection owner   # None: this end has let go
    cdef Head request
    cdef bint is_held                  # an extended CONNECT: DATA is not looked at before the upstream accepts, nor is its end
    cdef StreamTunnel tunnel           # after it did
    cdef Exchange exchange             # to end with that tunnel
    cdef bint is_settled               # the exchange is, its last hook included
    cdef bint has_let_go

    cdef int hold(self, bint is_end) except -1     # until switch_protocols()
    cdef int drain_if(self, bint is_last) except -1
