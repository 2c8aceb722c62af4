# How many bytes the proxy holds because somebody has not taken them yet, and who has to wait because they are too many.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.memory.party cimport Party


cdef enum:
    SMALL_READ = 16384         # what one read takes when half of the budget is used: a TLS record
    SMALLEST_READ = 4096       # and when all of it is


cdef class Budget:
    cdef readonly int64_t limit            # max_in_flight_bytes
    cdef readonly int64_t held             # bytes, all connections together
    cdef readonly int64_t waits            # how often somebody had to wait
    cdef int64_t small_from                # reads are small from here on
    cdef int64_t wait_from                 # what can only grow waits from here on
    cdef int64_t resume_below              # and goes on below this
    cdef object call_soon                  # None: nobody ever waits
    cdef dict waiting                      # Party -> None, in the order in which they came
    cdef Party elder                       # may grow without limit, until it leaves
    cdef bint woken                        # wake() is on its way

    cdef inline void take(self, Py_ssize_t count) noexcept:
        self.held += count

    cdef inline void give(self, Py_ssize_t count) noexcept:
        self.held -= count
        if self.waiting and self.held < self.resume_below:
            self.wake_soon()

    # Is it time to hold no more than is needed to go on?
    cdef inline bint is_short(self) noexcept:
        return self.held >= self.small_from

    # What a read that usually takes `usual` bytes may take now
    cdef inline Py_ssize_t window(self, Py_ssize_t usual) noexcept:
        if not self.is_short():
            return usual
        return min(usual, <Py_ssize_t>SMALL_READ if self.held < self.limit else <Py_ssize_t>SMALLEST_READ)

    # Is there so much room that bytes may be held only to set somebody else free?
    cdef inline bint is_plenty(self) noexcept:
        return self.held < self.small_from // 2

    cdef inline bint is_scarce(self) noexcept:
        return self.held >= self.wait_from

    # May `party` go on to collect bytes that it cannot pass on yet? If not, it is called back: Party.afforded()
    cdef bint may_grow(self, Party party) except -1
    # It collects no more
    cdef int leave(self, Party party) except -1
    cdef void wake_soon(self) noexcept
