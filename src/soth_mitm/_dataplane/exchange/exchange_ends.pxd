# How an exchange ends.

from soth_mitm._dataplane.exchange.exchange_shown cimport ExchangeShown


cdef class ExchangeEnds(ExchangeShown):
    cdef int drop_upstream(self) except -1
    cdef int stop_upload(self) except -1
    cdef int refuse_rest(self) except -1

    cdef int finish(self) except -1                    # both messages are complete
    cdef int abort(self, object error) except -1       # now: the client is gone, or takes nothing
    cdef int cut(self, object error) except -1         # the same; if a response has begun, what was relayed of it arrives
    cdef int lose_client(self, object error) except -1     # the same: its connection or stream has ended
    cdef int abort_if_cut(self) except -1              # its end came before the rest of the request
    cdef int truncate(self, object error) except -1    # the client is given what was relayed before, and can tell that it is not all
    cdef int note_cut(self, object error) except -1
    cdef int terminate(self) except -1                 # the client's stream has ended
    cdef int end(self) except -1
    cdef bint has_uploaded(self) noexcept              # frames of the request were seen
    cdef int close_stages(self) except -1
    cdef int settle(self) except -1
