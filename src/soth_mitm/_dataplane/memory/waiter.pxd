# What a deadline, the budget, a pool or a hook calls back. A method that is not overridden does
# nothing.

cdef class Waiter:
    # a deadline passed; `stage` is what it was set with
    cdef int on_deadline(self, int stage) except -1
    # the budget has room again, or this waiter may go on without
    cdef int on_budget(self) except -1
    # a hook that had suspended has returned, raised, or took too long (then `error` is a
    # TimeoutError)
    cdef int on_hook_result(self, object result, object error) except -1
    # a hook that was too late has returned this after all
    cdef int on_late_result(self, object result) except -1
    # a hook failed and `handler.recover_from_panics` is off, or it was cancelled: abort the
    # exchange
    cdef int on_hook_abort(self, object error) except -1
    # a chunk whose filter had suspended is judged; a ChunkVerdict
    cdef int on_chunk_judged(self, int verdict) except -1

    # a pool has a Stream for this waiter, or has given up
    cdef int on_pool_ready(self, object stream) except -1
    cdef int on_pool_failure(self, object error) except -1
