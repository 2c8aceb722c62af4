# What one exchange holds of the budget of bytes, and its wait for more.

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef enum:
    LEAST_HELD = 16384                  # bytes of one frame or message that are held, however short memory is


cdef class BudgetShare(Waiter):
    cdef Settings settings
    cdef ExchangeCallbacks owner
    cdef Deadline deadline
    cdef Py_ssize_t held           # bytes that the budget counts for this exchange
    cdef bint is_waiting
    cdef bint has_waited           # for long enough: it does not wait again

    cdef int charge(self, Py_ssize_t count) except -1
    cdef int refund(self, Py_ssize_t count) except -1
    # More is to come: wait, if the budget says so. A body that is decided on has a deadline of its own
    cdef int reserve(self, bint is_deciding) except -1
    cdef int stop_waiting(self) except -1
    # It has waited for long enough, and memory is short all the same: of a frame or message no more is held than is now, or than LEAST_HELD
    cdef bint must_cut(self) noexcept


cdef BudgetShare new_budget_share(Settings settings, ExchangeCallbacks owner)
