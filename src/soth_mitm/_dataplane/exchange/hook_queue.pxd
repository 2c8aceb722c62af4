# The hooks of one exchange that come after its decision: one at a time, in order, and bounded.

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.http.hooks cimport Hook, Hooks
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef class HookQueue(Waiter):
    cdef Settings settings
    cdef Hooks hooks
    cdef ExchangeCallbacks owner
    cdef BudgetShare share
    cdef object waiting            # deque of (Hook, argument, argument), made when the first one has to wait
    cdef Py_ssize_t waiting_bytes
    cdef Hook called               # the last one that was called
    cdef Deadline deadline
    cdef bint is_busy              # a hook has suspended
    cdef bint is_pacing            # the queue is full and its owner was told
    cdef bint is_dropping          # it was full for long enough: what does not fit is dropped
    cdef bint is_closed            # the exchange has ended: nothing is paced any more

    # Call the hook now, or after those before it
    cdef int push(self, Hook hook, object first, object second) except -1
    cdef bint is_full(self) except -1
    cdef bint is_idle(self) except -1
    cdef int close(self) except -1
    cdef int call(self, Hook hook, object first, object second) except -1
    cdef int drain(self) except -1


cdef HookQueue new_hook_queue(Settings settings, Hooks hooks, ExchangeCallbacks owner, BudgetShare share)
