# HTTP/1 on one client connection: requests one after another, each with an upstream connection from a pool, both directions at once.
#
#   sending     HEAD ─► CONNECT ─► COLLECT ─► DECIDE ─► CLAIM ─► RELAY ─► SENT            answering   NONE ─► HEAD ─► RELAY ─► DONE
#                └──────────▲──────────▲──────────▲
#                 (a known destination; no body to wait for; nobody to ask)
#
# A flow ends when it is SENT and DONE; then comes the next head. Every state has a deadline.

from soth_mitm._dataplane.exchange.flow cimport Route
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.exchange.responding cimport Responding


# Requests one after another, and what moves each of them and its response on
cdef class Exchange(Responding):
    cdef Route route                   # where the last request went
    cdef object router                 # router(scheme, authority) -> Route
    cdef bytes routed                  # the authority that `route` is for
    cdef object routed_scheme          # and the scheme; None: the request named no URL
    cdef Py_ssize_t scanned            # of the client's read buffer, for the next head
    cdef bint running
    cdef bint again
    cdef int begun                     # requests, since the loop's turn began

    cdef int read_head(self) except -1
    cdef int open_flow(self, Head head) except -1
    cdef int begin_flow(self) except -1                    # its route is settled
    cdef int find_route(self, Head head) except -1
    cdef int ask_connect(self) except -1
    cdef int take_route(self, object answer, object error) except -1       # after on_connect
    cdef int collect(self) except -1
    cdef int ask(self) except -1
    cdef int refuse_unseen(self) except -1     # 1: answered, since the handler would not see the whole body
    cdef int decided(self, object decision) except -1
    cdef int allowed(self) except -1
    cdef int undecided(self, object error) except -1       # on_request failed: by failure_policy, or by what it had wanted
    cdef int fail_closed(self, object error, bytes text) except -1     # it failed, and nothing is forwarded: 502 with `text`, or a cut
    cdef int forward(self) except -1
    cdef int answer_last(self) except -1       # a request that is to be forwarded no more
    cdef int write_request(self) except -1
    cdef int relay_request(self) except -1
    cdef int request_sent(self) except -1
