# What the handler is shown of an exchange, and what is kept for that.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.exchange_recorded cimport ExchangeRecorded
from soth_mitm._dataplane.exchange.taps cimport FrameTap
from soth_mitm._dataplane.http.hooks cimport Hook
from soth_mitm._dataplane.http.messages cimport RawRequest, RawResponse


cdef class ExchangeShown(ExchangeRecorded):
    cdef RawRequest show_request(self)
    cdef int ask_afterwards(self) except -1            # monitor mode: before every other hook of the exchange, and once
    cdef int close_ignored(self, object decision) except -1        # the body of a decision that is not applied

    cdef RawResponse show_response(self, bytes body)
    cdef int show_response_head(self) except -1
    cdef int end_response(self, bint is_whole) except -1

    cdef bint shows_messages(self) noexcept            # of a WebSocket; or asks about them
    cdef bint filters_messages(self) noexcept
    cdef int end_upload(self) except -1
    cdef int end_frames(self, FrameTap tap) except -1
    cdef int push_frames(self, FrameTap tap) except -1
    cdef int push_chunks(self, list found, str direction, int64_t* sequence) except -1
    cdef int spare_request(self) except -1             # memory is scarce: the body that chunks carry is let go
    cdef int push(self, Hook hook, object first, object second) except -1

    cdef BudgetShare own_share(self)
    cdef int charge(self, Py_ssize_t count) except -1
    cdef int refund(self, Py_ssize_t count) except -1
    cdef Py_ssize_t held(self) noexcept
    cdef int reserve(self, bint is_deciding) except -1
    cdef int forget_buffered(self) except -1           # it will not be sent again; if it is not sent yet, nothing happens
    cdef int drop_buffered(self) except -1             # it will not be sent at all, or again
    cdef int drop_held(self) except -1                 # the same of the response's body
    cdef int leave_decision(self) except -1            # none about the response waits any more
