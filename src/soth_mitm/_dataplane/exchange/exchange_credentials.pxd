# The part of an exchange about credentials.

from soth_mitm._dataplane.exchange.exchange_upgrades cimport ExchangeUpgrades
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


cdef class ExchangeCredentials(ExchangeUpgrades):
    # False: it was answered, or the values that it needs are waited for
    cdef bint settle_credentials(self) except -1
    # False: they cannot be put in, and it was answered
    cdef bint take_values(self, dict values) except -1
    cdef int refuse_misdirected(self) except -1
    cdef int refuse_unavailable(self, str why) except -1
    # The whole body; None: only a part of it is here
    cdef bytes whole_body(self)
    cdef int search_upload(self) except -1             # from its beginning on
    cdef HeadEdits body_edits(self, HeadEdits edits)   # what of the head is wrong once the body has a value in it
