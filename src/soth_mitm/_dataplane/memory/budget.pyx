"""The global budget of buffered bytes, `max_in_flight_bytes`.

What counts: blocks of read buffers, ciphertext that is not decrypted, bytes that a transport could
not write at once, the heads of requests and responses, and what is kept for the handler: request
bodies before the decision, copies of bodies, frames that are incomplete or wait for their hook.

There are two ways to hold bytes, and each has its rule.

*In passing.* Bytes that were read and that the receiver does not take. One connection holds one
read of them for each direction, because a side that cannot write pauses the reading of the other
side. So there is no rule for when such a connection may read, only for how much: from half of the
budget on, reads are small, and when it is used up, smaller still. That slows a connection whose
receiver takes its bytes, and never stops it, whatever others hold.

*Kept.* What is collected for the handler grows with every read and is released only when the body
is complete, so exchanges could wait for each other for ever. From three quarters of the budget on,
such an exchange waits, its reading paused. Three things end the wait: the total falls below five
eighths; the exchange becomes the *exempt* one; or its deadline passes. The exempt exchange is the
first of those that would have to wait. It continues whatever the total is, until it holds nothing;
then the next in line becomes exempt. So one exchange always moves, and the exempt one has deadlines
like every other. When the deadline of a waiting exchange passes, it stops growing: a request is
decided on what has arrived and is streamed on (`body.buffer_timeout_ms`), a copy ends there, marked
(`flow_runtime.dispatch_queue_send_timeout_ms`). From then on, while the total is above three
quarters, it holds no more than LEAST_HELD of a frame or message (exchange/budget_share): the frame
is shown, or decided on, as far as it has come.

*Promised.* The windows of HTTP/2 grow with use, and a peer may fill them at once, whatever became
of the other side meanwhile. All that they have grown by is at most half of the budget, and a
quarter of it on one connection. What they begin with is no part of that: it is smaller on a
connection that begins while half of the budget is used, and otherwise bounded by the number of
streams alone.

So the total exceeds the limit by at most what one exchange may keep, LEAST_HELD for each direction
of each stream of frames, one read, and one smallest read and one TLS record for each direction of
each connection that does not move, and one first window for each stream of HTTP/2. Nothing is
aborted.
"""

cimport cython
from libc.stdint cimport int64_t

from soth_mitm._dataplane.memory.waiter cimport Waiter

cdef extern from *:
    const int64_t UNLIMITED "INT64_MAX"


@cython.final
cdef class Budget:
    """Counts bytes on one loop. Without `limit` nothing waits; with one, `call_soon` is the loop's.
    """

    def __cinit__(self, limit=None, call_soon=None):
        self.waiting = {}
        self.call_soon = call_soon
        self.set_limit(UNLIMITED if limit is None else limit)

    def set_limit(self, int64_t limit):
        """Apply another limit, at once."""
        self.limit = limit
        self.read_mark = limit // 2
        self.wait_mark = limit - limit // 4
        self.resume_mark = limit // 2 + limit // 8
        # wakes those that wait, if the new limit lets them continue
        self.give(0)

    cdef bint try_reserve(self, Waiter waiter) except -1:
        # newcomers do not overtake those that wait
        cdef int64_t mark = self.resume_mark if self.waiting else self.wait_mark
        if self.held < mark or waiter is self.exempt:
            return True
        if self.exempt is None and not self.waiting:
            self.exempt = waiter
            return True
        if waiter not in self.waiting:
            self.waiting[waiter] = None
            self.waits += 1
            if self.exempt is None:
                self.wake_soon()
        return False

    cdef int leave(self, Waiter waiter) except -1:
        self.waiting.pop(waiter, None)
        if waiter is self.exempt:
            self.exempt = None
            if self.waiting:
                self.wake_soon()
        return 0

    cdef void wake_soon(self) noexcept:
        # from a callback of its own: the caller of give() is in the middle of something
        if not self.woken:
            self.woken = True
            self.call_soon(self.wake)

    def wake(self):
        """Call back the waiters that may continue. Called by the loop."""
        cdef Waiter waiter
        cdef list ready = []
        self.woken = False
        if self.held < self.resume_mark:
            ready = list(self.waiting)
            self.waiting.clear()
        elif self.exempt is None and self.waiting:
            self.exempt = next(iter(self.waiting))
            del self.waiting[self.exempt]
            ready = [self.exempt]
        for waiter in ready:
            waiter.on_budget()

    @property
    def waiting_count(self):
        """How many wait now."""
        return len(self.waiting)
