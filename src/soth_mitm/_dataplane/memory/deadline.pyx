"""Deadlines: many timers of few durations, with one loop timer for each duration and none while
nothing waits.
"""

cimport cython
from cpython.time cimport monotonic

from soth_mitm._dataplane.memory.ledger cimport LEDGER_DEADLINE, note
from soth_mitm._dataplane.memory.waiter cimport Waiter


@cython.final
@cython.freelist(64)
cdef class Deadline:
    """One timer of one owner. Clearing one that is not set is harmless."""

    def __cinit__(self, Waiter owner not None):
        # a reference would be a cycle: a closed connection would wait for the garbage collector
        self.owner = <void*>owner

    cdef int set(self, DeadlineQueue queue, int stage) except -1:
        if self.queue is not None:
            self.clear()
        self.waiting = <Waiter>self.owner
        self.stage = stage
        self.at = monotonic() + queue.seconds
        queue.append(self)
        note(LEDGER_DEADLINE, 1)
        if queue.timer is None:
            queue.arm(queue.seconds)
        return 0

    cdef void clear(self) noexcept:
        if self.queue is not None:
            self.queue.remove(self)
            self.waiting = None
            note(LEDGER_DEADLINE, -1)


@cython.final
cdef class DeadlineQueue:
    """All deadlines of one duration on one loop. `seconds` may be a fraction; `call_later` is the
    loop's.
    """

    def __cinit__(self, call_later, double seconds):
        self.call_later = call_later
        self.seconds = seconds

    cdef int arm(self, double delay) except -1:
        self.timer = self.call_later(max(delay, 0.001), self.expire)
        return 0

    cdef void append(self, Deadline deadline) noexcept:
        deadline.queue = self
        deadline.after = None
        deadline.before = self.tail
        if self.tail is None:
            self.head = deadline
        else:
            self.tail.after = deadline
        self.tail = deadline

    cdef void remove(self, Deadline deadline) noexcept:
        if deadline.before is None:
            self.head = deadline.after
        else:
            deadline.before.after = deadline.after
        if deadline.after is None:
            self.tail = deadline.before
        else:
            deadline.after.before = deadline.before
        deadline.before = None
        deadline.after = None
        deadline.queue = None

    def expire(self):
        """Call back the owners of the deadlines that have passed, then wait for the next. Called by
        the loop.
        """
        cdef Deadline due
        cdef Waiter owner
        cdef double now = monotonic()
        self.timer = None
        try:
            while self.head is not None and self.head.at <= now:
                due = self.head
                owner = due.waiting
                due.clear()
                owner.on_deadline(due.stage)
        finally:
            # an owner may have set a deadline of this duration meanwhile, which armed the timer
            if self.head is not None and self.timer is None:
                self.arm(self.head.at - monotonic())

    def close(self):
        """Expire all pending deadlines now. Called at shutdown, after which nothing calls `expire`.
        """
        cdef Deadline due
        cdef Waiter owner
        while self.head is not None:
            due = self.head
            owner = due.waiting
            due.clear()
            # an owner that sees progress sets its deadline again; the second expiry ends that
            owner.on_deadline(due.stage)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
