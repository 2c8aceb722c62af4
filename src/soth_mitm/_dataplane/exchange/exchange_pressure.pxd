# When an exchange reads less.

from soth_mitm._dataplane.exchange.exchange_ends cimport ExchangeEnds


cdef class ExchangePressure(ExchangeEnds):
    cdef int set_pauses(self) except -1
    cdef int resume_upstream(self, int reason) except -1
    cdef bint reads_ahead(self) noexcept
    cdef bint has_enough(self) noexcept                # of the request: the client is not to be read now
    cdef bint keeps_upload(self) noexcept              # something is held of the request while it is relayed
