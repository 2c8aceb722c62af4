# Endpoints that were written to in this turn of the loop. One callback of the loop flushes each of
# them once, so that all streams of a connection share one write, and its TLS records.

from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.transport.endpoint cimport Endpoint


cdef class GatheredWrites:
    cdef object call_soon
    cdef list endpoints
    cdef bint is_due                   # the loop will call write()

    # It is flushed at the end of the turn, and then called back: on_flushed()
    cdef int add(self, Endpoint endpoint) except -1


# Those of the arena's loop; `call_soon` is the loop's
cdef GatheredWrites gathered_writes(Arena arena, object call_soon)
