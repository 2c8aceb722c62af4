"""The hooks of one exchange that come after its decision.

The next one is called when the one before has returned. A full queue pauses the exchange for a bounded time; then frames
that do not fit are dropped and counted.
"""

from collections import deque

cimport cython

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.own_body cimport close_untaken
from soth_mitm._dataplane.http.hooks cimport HOOK_DONE, HOOK_FAILED, HOOK_PENDING, Hook, Hooks
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.waiter cimport Waiter
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_HANDLER


@cython.final
cdef class HookQueue(Waiter):
    """Calls hooks in order."""

    cdef int push(self, Hook hook, object first, object second) except -1:
        # a reference of our own, here and below: it may end meanwhile
        cdef ExchangeCallbacks owner = self.owner
        # `waiting` is not empty while it is drained: what comes meanwhile has its place behind it
        if not self.is_busy and not self.waiting:
            return self.call(hook, first, second)
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append((hook, first, second))
        if type(first) is StreamChunk:
            self.waiting_bytes += len((<StreamChunk>first).payload)
            self.share.charge(len((<StreamChunk>first).payload))
        if not self.is_pacing and not self.is_dropping and not self.is_closed and self.is_full():
            self.is_pacing = True
            if self.deadline is None:
                self.deadline = Deadline(self)
            self.deadline.set(self.settings.pace, 0)
            owner.on_pressure(PAUSE_HANDLER, True)
        return 0

    cdef bint is_full(self) except -1:
        return self.waiting is not None and (
            len(self.waiting) >= self.settings.queue_limit or self.waiting_bytes > self.settings.body_limit
            or (self.waiting_bytes > 0 and self.settings.arena.budget.above_wait_mark()))

    cdef bint is_idle(self) except -1:
        return not self.is_busy and not self.waiting

    cdef int close(self) except -1:
        self.is_closed = True
        self.is_pacing = False
        if self.deadline is not None:
            self.deadline.clear()
        return 0

    cdef int call(self, Hook hook, object first, object second) except -1:
        cdef ExchangeCallbacks owner = self.owner
        cdef int outcome = self.hooks.run(hook, first, second, self)
        self.is_busy = outcome == HOOK_PENDING
        self.called = hook
        if outcome == HOOK_DONE and hook is self.hooks.on_request:
            owner.on_late_decision(self.hooks.result)
        elif outcome == HOOK_DONE and self.hooks.result is not None:
            self.hooks.only_looks(hook, self.hooks.result)
        if outcome == HOOK_FAILED and self.hooks.cuts(self.hooks.error):
            return owner.on_hook_abort(self.hooks.error)
        return 0

    cdef int on_hook_result(self, object result, object error) except -1:
        cdef ExchangeCallbacks owner = self.owner
        self.is_busy = False
        if error is None and self.called is self.hooks.on_request:
            owner.on_late_decision(result)
        elif error is None and result is not None:
            self.hooks.only_looks(self.called, result)
        if error is not None and self.hooks.cuts(error):
            owner.on_hook_abort(error)
        return self.drain()

    cdef int on_late_result(self, object result) except -1:
        return close_untaken(self.settings, result)

    cdef int drain(self) except -1:
        cdef ExchangeCallbacks owner = self.owner
        if owner is None:
            # what was called back has ended the exchange
            return 0
        while self.waiting and not self.is_busy:
            hook, first, second = self.waiting.popleft()
            if type(first) is StreamChunk:
                self.waiting_bytes -= len((<StreamChunk>first).payload)
                self.share.refund(len((<StreamChunk>first).payload))
            self.call(hook, first, second)
        if not self.is_full():
            self.is_dropping = False
            if self.is_pacing:
                self.is_pacing = False
                self.deadline.clear()
                owner.on_pressure(PAUSE_HANDLER, False)
        return owner.on_queue_idle() if self.is_idle() else 0

    cdef int on_deadline(self, int stage) except -1:
        cdef ExchangeCallbacks owner = self.owner
        if not self.is_pacing:
            return 0
        self.is_pacing = False
        self.is_dropping = True
        return owner.on_pressure(PAUSE_HANDLER, False)


cdef HookQueue new_hook_queue(Settings settings, Hooks hooks, ExchangeCallbacks owner, BudgetShare share):
    cdef HookQueue queue = HookQueue.__new__(HookQueue)
    queue.settings = settings
    queue.hooks = hooks
    queue.owner = owner
    queue.share = share
    return queue
