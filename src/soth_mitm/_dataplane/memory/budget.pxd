# How many bytes the proxy holds because they cannot be passed on yet, and which exchanges wait
# because they are too many.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef enum:
    SMALL_READ = 16384         # what one read takes when half of the budget is used: a TLS record
    SMALLEST_READ = 4096       # and when all of it is


cdef class Budget:
    cdef readonly int64_t limit  # max_in_flight_bytes
    cdef readonly int64_t held   # bytes, all connections together
    cdef readonly int64_t waits  # how often a waiter had to wait
    cdef readonly int64_t promised   # bytes beyond the usual that peers may send, and have not yet
    cdef int64_t read_mark       # reads are small from here on
    cdef int64_t wait_mark       # from here on, an exchange that collects a body waits
    cdef int64_t resume_mark     # and continues below this
    cdef object call_soon        # None: nothing ever waits
    cdef dict waiting            # Waiter -> None, in the order in which they came
    cdef Waiter exempt           # may grow without limit, until it leaves
    cdef bint woken              # wake() is on its way

    cdef inline void take(self, Py_ssize_t count) noexcept:
        self.held += count

    cdef inline void give(self, Py_ssize_t count) noexcept:
        self.held -= count
        if self.waiting and self.held < self.resume_mark:
            self.wake_soon()

    # True: hold no more than is needed to continue
    cdef inline bint above_read_mark(self) noexcept:
        return self.held >= self.read_mark

    # What a read that usually takes `usual` bytes may take now
    cdef inline Py_ssize_t window(self, Py_ssize_t usual) noexcept:
        if not self.above_read_mark():
            return usual
        return min(
            usual, <Py_ssize_t>SMALL_READ if self.held < self.limit else <Py_ssize_t>SMALLEST_READ)

    # True: there is so much room that bytes may be read ahead, to release their connection early
    cdef inline bint below_read_ahead_mark(self) noexcept:
        return self.held < self.read_mark // 2

    cdef inline bint above_wait_mark(self) noexcept:
        return self.held >= self.wait_mark

    # How many more bytes peers may be told to send beyond the usual, on a connection that was
    # promised `own` of them. One connection does not get all of them
    cdef inline int64_t promise_room(self, int64_t own) noexcept:
        if self.above_read_mark():
            return 0
        return max(
            <int64_t>0, min(self.read_mark - self.promised, self.read_mark // 2 - own))

    cdef inline void promise(self, int64_t count) noexcept:
        self.promised += count

    # True: `waiter` may collect more bytes that it cannot pass on yet. False: it is called back,
    # Waiter.on_budget()
    cdef bint try_reserve(self, Waiter waiter) except -1
    # It collects no more
    cdef int leave(self, Waiter waiter) except -1
    cdef void wake_soon(self) noexcept
