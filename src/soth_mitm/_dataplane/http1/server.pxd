# A client's connection that speaks HTTP/1: heads one after another, keep-alive, and its end. Each
# request is an Exchange.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.exchange cimport Exchange
from soth_mitm._dataplane.exchange.relay cimport Tunnel
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection
from soth_mitm._dataplane.http1.connection_state cimport ServerInput, ServerState
from soth_mitm._dataplane.http1.stream cimport Http1Stream
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.wire.head cimport Head


cdef class Http1ServerConnection(HttpConnection):
    cdef Settings settings
    cdef Http1ServerStream stream
    cdef Exchange exchange             # the current one, or None
    # called once: the connection is gone and every hook has returned
    cdef object on_end
    cdef object router                 # router(scheme, authority) -> Route
    # on_refused(status, why): what came was not even a request; None: nobody is to be told
    cdef public object on_refused
    cdef Route route                   # where the last request went
    cdef bytes routed                  # the authority that `route` is for
    cdef object routed_scheme          # and the scheme; None: the request named no URL
    # an upstream connection that only this client uses; None: none
    cdef HttpConnection reserved
    cdef Tunnel tunnel                 # after 101: a blind one,
    cdef StreamTunnel websocket        # or one whose messages are shown
    cdef ServerState state
    cdef bint keep_alive               # the connection goes on after the current exchange
    cdef bint end_reported             # on_end was called
    cdef Py_ssize_t unsettled          # exchanges whose last hook has not returned
    cdef Py_ssize_t scanned            # of the read buffer, for the next head
    cdef bint is_running
    cdef bint runs_again
    cdef bint is_turn_due              # the loop will call take_turn()
    cdef int begun                     # exchanges, since the loop's turn began
    cdef Deadline client_deadline      # for the next head, and for its end
    cdef Deadline reader_deadline      # for a client that does not read
    cdef int64_t reader_took           # what the client had taken when that was set
    cdef Deadline half_closed          # made when the client has ended its direction
    cdef int64_t half_closed_at        # what it had been sent then

    cdef int move(self, ServerInput event) except -1
    cdef int advance(self) except -1
    cdef int take_later(self) except -1
    cdef int read_head(self) except -1
    cdef int open_exchange(self, Head head) except -1
    cdef int find_route(self, Head head) except -1
    cdef int refuse(self, int status, bytes text) except -1        # what is not even a request
    cdef int await_request(self) except -1
    cdef int exchange_done(self) except -1
    cdef int begin_tunnel(self, HttpConnection upstream) except -1
    cdef int serve_half_closed(self) except -1
    cdef int await_reader(self) except -1
    cdef int64_t taken_by_reader(self) except -1
    cdef int leave(self) except -1                 # close the connection gracefully, and stop
    cdef int cut(self, object error) except -1     # now: the client is gone, or takes nothing
    cdef int stop(self) except -1
    cdef int check_end(self) except -1


cdef class Http1ServerStream(Http1Stream):
    cdef Http1ServerConnection owner
    cdef bint is_1_0                   # the request is HTTP/1.0
    cdef bint is_head_request          # HEAD: its response has no content
    cdef bint has_no_more(self) noexcept
