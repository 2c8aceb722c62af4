# A request that the handler changes.

from soth_mitm._dataplane.exchange.exchange_answers cimport ExchangeAnswers


cdef class ExchangeChanges(ExchangeAnswers):
    cdef bint change(self, object decision) except -1              # false: it cannot be, and was answered
    cdef bint redirect(self, object where) except -1               # false: it may not go there, and was answered
    cdef int replace_content(self, object decision) except -1
    cdef bint may_drop_trailers(self) noexcept                     # so that they cannot go on as they come
    cdef bytes trailers_to_send(self)                              # or None
    cdef int send_own(self) except -1                              # what of that body can be sent now; a Moved
