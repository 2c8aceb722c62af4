"""What one exchange holds of the budget of bytes, and its wait for more."""

cimport cython

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.waiter cimport Waiter
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_BUDGET


@cython.final
cdef class BudgetShare(Waiter):
    """Counts what an exchange keeps for the handler, and pauses the exchange while memory is short."""

    cdef int charge(self, Py_ssize_t count) except -1:
        self.held += count
        self.settings.arena.budget.take(count)
        return 0

    cdef int refund(self, Py_ssize_t count) except -1:
        self.held -= count
        self.settings.arena.budget.give(count)
        if self.held == 0:
            if self.is_waiting:
                # from a callback of its own: whoever gives this back is in the middle of something
                self.settings.hooks.loop.call_soon(self.go_on)
            self.settings.arena.budget.leave(self)
        return 0

    def go_on(self):
        """Wait no more, since nothing is held. Called by the loop."""
        self.on_budget()

    cdef int reserve(self, bint is_deciding) except -1:
        # a reference of our own, here and below: it may end meanwhile
        cdef ExchangeCallbacks owner = self.owner
        if self.is_waiting or self.has_waited or self.held == 0:
            return 0
        if self.settings.arena.budget.try_reserve(self):
            return 0
        self.is_waiting = True
        if not is_deciding:
            if self.deadline is None:
                self.deadline = Deadline(self)
            self.deadline.set(self.settings.pace, 0)
        return owner.on_pressure(PAUSE_BUDGET, True)

    cdef int on_budget(self) except -1:
        cdef ExchangeCallbacks owner = self.owner
        if not self.is_waiting:
            return 0
        self.is_waiting = False
        if self.deadline is not None:
            self.deadline.clear()
        return owner.on_pressure(PAUSE_BUDGET, False)

    cdef int stop_waiting(self) except -1:
        if self.is_waiting:
            self.is_waiting = False
            self.settings.arena.budget.leave(self)
            if self.deadline is not None:
                self.deadline.clear()
        return 0

    cdef bint must_cut(self) noexcept:
        return self.has_waited and self.settings.arena.budget.above_wait_mark()

    cdef int on_deadline(self, int stage) except -1:
        cdef ExchangeCallbacks owner = self.owner
        if not self.is_waiting:
            return 0
        self.stop_waiting()
        self.has_waited = True
        owner.on_copies_late()
        return owner.on_pressure(PAUSE_BUDGET, False)


cdef BudgetShare new_budget_share(Settings settings, ExchangeCallbacks owner):
    cdef BudgetShare share = BudgetShare.__new__(BudgetShare)
    share.settings = settings
    share.owner = owner
    return share
