# Many timers, one loop timer for each duration.
#
# All deadlines of one duration expire in the order in which they were set, so a queue in that order
# needs a loop timer for its head only. Setting and clearing a deadline is a few pointer writes; the
# loop's timer is armed when the queue stops being empty and is left alone when its head is cleared
# early (it then looks again at the time of the new head).

from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef class Deadline:
    cdef void* owner          # borrowed: the owner outlives its deadline
    cdef Waiter waiting       # the owner while the deadline is set, which keeps it alive; else None
    cdef readonly int stage   # what the owner waits for; handed back to owner.on_deadline()
    cdef DeadlineQueue queue  # None: not set
    cdef Deadline before
    cdef Deadline after
    cdef double at

    cdef int set(self, DeadlineQueue queue, int stage) except -1  # restarts it when it is set
    cdef void clear(self) noexcept


cdef class DeadlineQueue:
    cdef object call_later
    cdef readonly double seconds
    cdef object timer         # the loop's handle, or None
    cdef Deadline head
    cdef Deadline tail

    cdef int arm(self, double delay) except -1
    cdef void append(self, Deadline deadline) noexcept
    cdef void remove(self, Deadline deadline) noexcept
