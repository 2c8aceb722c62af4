# The part of an exchange about credentials.

from soth_mitm._dataplane.exchange.exchange_upgrades cimport ExchangeUpgrades
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


cdef class ExchangeCredentials(ExchangeUpgrades):
    # False: it was answered, or the values that it needs are waited for
    cdef bint settle_credentials(self) except -1
    # False: they cannot be put in, and it was answered
    cdef bint take_values(self, dict values) except -1
    cdef int refuse_misdirected(self) except -1        # or what cannot be searched
    cdef bint fills_body(self) except -1               # placeholders in the body are replaced
    # Have the whole body without its content coding, where it is looked into. False: that cannot be, and it was answered
    cdef bint unpack_body(self, bytes body) except -1
    cdef bint refuse_coded(self, str why) except -1
    cdef int send_plain(self) except -1                # in place of the coded body
    cdef int count_search(self) except -1
    cdef int refuse_unavailable(self, str why) except -1
    # The whole body; None: only a part of it is here
    cdef bytes whole_body(self)
    cdef int search_upload(self) except -1             # from its beginning on
    cdef HeadEdits request_edits(self, HeadEdits edits)    # what may not stand in the head because of credentials
    cdef bint redacts(self) noexcept                   # the response is searched for values
    # The head of the response without values, and the content behind it as well. None: it was answered
    cdef Head without_values(self, Head head)
