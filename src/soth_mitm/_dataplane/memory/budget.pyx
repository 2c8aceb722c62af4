"""The global budget of buffered bytes, `max_in_flight_bytes`.

What counts: blocks of read buffers, ciphertext that is not decrypted, bytes that a transport could not write at once, and what is kept for
the handler: request bodies before the decision, copies of bodies, frames that are incomplete or wait for their hook.

There are two ways to hold bytes, and each has its rule.

*In passing.* Bytes that were read and whose receiver does not take them. One connection holds one read of them for each direction, because
whoever cannot write pauses the reading of the other side. So no rule is needed for when such a connection may read, only for how much: from
half of the budget on, reads are small, and when it is used up, smaller still. A connection whose receiver does take its bytes is slowed
down by that, never stopped, whatever others hold.

*Kept.* What is collected for the handler grows with every read and is let go only when the body is complete, so that flows could wait
for each other for ever. From three quarters of the budget on such a flow waits, its reading paused. Three things end the wait: the total
falls below five eighths; the flow becomes the *elder*; or its deadline passes. The elder is the flow that came first among those that would
have to wait. It goes on whatever the total, until it holds nothing any more, then the next in line follows. So there is always one that
moves, and the elder itself, like every flow, has deadlines. When a waiting flow's deadline passes, it stops to grow: a request is decided
on what has arrived and streamed on (`body.buffer_timeout_ms`), a copy ends there, marked (`flow_runtime.dispatch_queue_send_timeout_ms`).

So the total exceeds the limit by at most what one flow may keep, one read, and for each direction of each connection that is stuck one
smallest read and one TLS record. Nothing is cut.
"""

cimport cython
from libc.stdint cimport int64_t

from soth_mitm._dataplane.memory.party cimport Party

cdef extern from *:
    const int64_t UNLIMITED "INT64_MAX"


@cython.final
cdef class Budget:
    """Counts bytes on one loop. Without `limit` nobody waits; with one, `call_soon` is the loop's."""

    def __cinit__(self, limit=None, call_soon=None):
        self.waiting = {}
        self.call_soon = call_soon
        self.set_limit(UNLIMITED if limit is None else limit)

    def set_limit(self, int64_t limit):
        """Apply another limit, at once."""
        self.limit = limit
        self.small_from = limit // 2
        self.wait_from = limit - limit // 4
        self.resume_below = limit // 2 + limit // 8
        # whoever waits finds out whether it still has to
        self.give(0)

    cdef bint may_grow(self, Party party) except -1:
        # once somebody waits, newcomers do not pass by
        if self.held < (self.resume_below if self.waiting else self.wait_from) or party is self.elder:
            return True
        if self.elder is None and not self.waiting:
            self.elder = party
            return True
        if party not in self.waiting:
            self.waiting[party] = None
            self.waits += 1
            if self.elder is None:
                self.wake_soon()
        return False

    cdef int leave(self, Party party) except -1:
        self.waiting.pop(party, None)
        if party is self.elder:
            self.elder = None
            if self.waiting:
                self.wake_soon()
        return 0

    cdef void wake_soon(self) noexcept:
        # from a callback of its own: whoever gives is in the middle of something
        if not self.woken:
            self.woken = True
            self.call_soon(self.wake)

    def wake(self):
        """Let go on who may. Called by the loop."""
        cdef Party party
        cdef list ready = []
        self.woken = False
        if self.held < self.resume_below:
            ready = list(self.waiting)
            self.waiting.clear()
        elif self.elder is None and self.waiting:
            self.elder = next(iter(self.waiting))
            del self.waiting[self.elder]
            ready = [self.elder]
        for party in ready:
            party.afforded()

    @property
    def waiting_count(self):
        """How many wait now."""
        return len(self.waiting)

    @property
    def has_elder(self):
        """Whether somebody may grow without limit."""
        return self.elder is not None
