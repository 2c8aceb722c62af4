"""The interface that deadlines, the budget, pools and hooks call back."""


# not final: everything that waits derives from it
cdef class Waiter:
    """Base of everything that waits for a deadline, the budget, a pool or a hook."""

    cdef int on_deadline(self, int stage) except -1:
        return 0

    cdef int on_budget(self) except -1:
        return 0

    cdef int on_hook_result(self, object result, object error) except -1:
        return 0

    cdef int on_late_result(self, object result) except -1:
        return 0

    cdef int on_hook_abort(self, object error) except -1:
        return 0

    cdef int on_chunk_judged(self, int verdict) except -1:
        return 0

    cdef int on_pool_ready(self, object stream) except -1:
        return 0

    cdef int on_pool_failure(self, object error) except -1:
        return 0
