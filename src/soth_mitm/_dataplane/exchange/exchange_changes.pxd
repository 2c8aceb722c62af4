# A request that the handler changes.

from soth_mitm._dataplane.exchange.exchange_answers cimport ExchangeAnswers
from soth_mitm._dataplane.memory.view cimport View


cdef class ExchangeChanges(ExchangeAnswers):
    cdef bint change(self, object decision) except -1              # false: it cannot be, and was answered
    cdef bint redirect(self, object where) except -1               # false: it may not go there, and was answered
    cdef int replace_content(self, object decision) except -1
    cdef bint may_drop_trailers(self) except -1                    # so that they cannot go on as they come
    cdef bytes trailers_to_send(self)                              # or None
    cdef bint is_behind_own(self) noexcept                         # the handler, with what it is shown of it; or the exchange is over
    cdef int observe_own(self, View piece) except -1
    cdef int show_own(self) except -1
    cdef int send_own(self) except -1                              # what of that body can be sent now; a Moved
