# One request and its response, from the head of the one to the end of the other. It knows no wire format: what it asks and tells its two
# streams is in http/stream.pxd. What it keeps is in exchange_state.pxd, and its parts are listed in exchange_state.pyx.

from soth_mitm._dataplane.exchange.body_buffer cimport BodyCopy, BufferedBody
from soth_mitm._dataplane.exchange.exchange_stages cimport ExchangeStages
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.exchange.taps cimport FrameTap
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream
from soth_mitm._dataplane.wire.head cimport Head


cdef class Exchange(ExchangeStages):
    # ---- for the client's connection
    cdef int start(self) except -1
    cdef int on_half_closed(self) except -1                        # a client that ended its direction was sent nothing for too long

    # ---- the request, up to the decision
    cdef int begin(self) except -1                     # its route is settled
    cdef int ask_route(self) except -1
    cdef int take_route(self, object answer, object error) except -1
    cdef int collect(self) except -1
    cdef int decide(self) except -1
    cdef int ask(self) except -1
    cdef int refuse_incomplete(self) except -1         # 1: answered, since the handler would not see the whole body
    cdef int decided(self, int judgement, object decision, object error) except -1

    # ---- the request, from the decision on
    cdef int forward(self) except -1
    cdef int acquire(self) except -1
    cdef int ask_pool(self) except -1
    cdef bint awaits_pool(self) noexcept
    cdef int answer_last(self) except -1               # a request that is to be forwarded no more
    cdef int send_request(self) except -1
    cdef int relay_request(self) except -1
    cdef int move_content(self) except -1              # of the request; a Moved
    # What was collected of a message, as far as the other side takes it now; true when all of it is on its way
    cdef bint send_buffered(self, BufferedBody buffered, Stream sink, bint is_wire) except -1
    cdef bint show_buffered(self) except -1
    cdef bint frame_buffered(self) except -1
    cdef int request_sent(self) except -1

    # ---- the response
    cdef int take_response(self, Head head) except -1  # the final one's head
    cdef int take_switch(self, Head head) except -1    # a 101
    cdef int relay_response(self) except -1
    cdef int response_done(self) except -1

    cdef int relay(self, Stream source, Stream sink, FrameTap tap, BodyCopy copy, bint is_request) except -1   # a Moved
    cdef bint owes_continue(self) noexcept
    cdef int expire(self, int expiry) except -1

    # ---- an upstream's stream that ends
    cdef int on_no_response(self, object error) except -1      # the upstream's stream ended without one
    cdef bint may_retry(self) except -1
    cdef bint can_repeat(self) noexcept
    cdef bint is_here_whole(self) noexcept             # all that is to be sent of the request, and it can be sent once more
    cdef int retry(self) except -1


cdef Exchange new_exchange(Settings settings, HttpConnection connection, Stream client, Route route, Head request)
