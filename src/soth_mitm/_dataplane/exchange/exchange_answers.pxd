# Responses of an exchange that no upstream gave.

from soth_mitm._dataplane.exchange.exchange_pressure cimport ExchangePressure
from soth_mitm._dataplane.memory.view cimport View


cdef class ExchangeAnswers(ExchangePressure):
    # A response of ours; or, when a response has begun, its end: in order if it was given whole. `text` without headers (None) is a line
    # for people
    cdef int answer(self, int status, bytes text, object headers) except -1
    cdef bint begins_upgrade(self, int status) noexcept            # a response of ours with that status would be taken for the switch
    cdef int explain(self, int status, bytes text) except -1
    cdef int refuse(self, int status, bytes text) except -1        # the same, counted as the client's fault
    cdef int reject(self) except -1
    cdef int fail_upstream(self, int status, bytes text) except -1     # the same, counted as the upstream's
    cdef int fail_closed(self, object error, int status, bytes text) except -1

    cdef int answer_from(self, object decision) except -1          # a body that is sent as it comes
    cdef int relay_answer(self) except -1
    cdef int begin_own_answer(self) except -1                      # its head; an Exchange has one that the handler replaced, too
    cdef int show_own_answer(self, View piece) except -1
    cdef int discard_rest(self) except -1                          # of a request that was answered
