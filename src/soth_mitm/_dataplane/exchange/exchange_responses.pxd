# What the handler decides about the upstream's response before any of it goes to the client.

from soth_mitm._dataplane.exchange.exchange_credentials cimport ExchangeCredentials
from soth_mitm._dataplane.http.hooks cimport Hook
from soth_mitm._dataplane.http.messages cimport RawResponse
from soth_mitm._dataplane.wire.head cimport Head


cdef class ExchangeResponses(ExchangeCredentials):
    cdef bint decides_response(self) noexcept          # the handler wants to
    cdef int ask_about_head(self, Head head) except -1
    cdef int hold(self) except -1
    cdef int explain_too_long(self) except -1
    cdef bint is_hold_bounded(self) noexcept           # a body over the limit is refused
    cdef int collect_response(self) except -1
    cdef int ask_about_body(self) except -1
    cdef int call(self, Hook hook, RawResponse view) except -1
    cdef int on_response_judged(self, object result, object error) except -1     # of a hook that had suspended
    cdef int response_decided(self, int judgement, object decision, object error) except -1
    cdef Hook response_hook(self)                      # that decides now

    cdef int pass_response(self) except -1
    cdef int change_response(self, object decision) except -1
    cdef int replace_response(self, object decision) except -1
    cdef int block_response(self, object decision) except -1
    cdef int refuse_decision(self, object error) except -1         # it cannot be applied to this response
    cdef int fail_response(self, object error, int status, bytes text) except -1
    cdef int part_with_upstream(self) except -1        # the rest of its response is not wanted
    cdef int on_response_lost(self, object error) except -1        # its stream ended while the response is held
    cdef bint may_drop_trailers_of_response(self) noexcept
    # An Exchange has this: the relayed head to the client, and the body behind it
    cdef int begin_response(self) except -1
