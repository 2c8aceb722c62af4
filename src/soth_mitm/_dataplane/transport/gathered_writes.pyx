"""Writing once in each turn of the loop, however many streams had something to send."""

cimport cython

from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.transport.endpoint cimport Endpoint


@cython.final
cdef class GatheredWrites:
    """The endpoints of a loop that are to be flushed at the end of its turn."""

    cdef int add(self, Endpoint endpoint) except -1:
        if endpoint.is_gathered:
            return 0
        endpoint.is_gathered = True
        self.endpoints.append(endpoint)
        if not self.is_due:
            self.is_due = True
            self.call_soon(self.write)
        return 0

    def write(self):
        """Flush each endpoint once. Called by the loop."""
        cdef Endpoint endpoint
        cdef list endpoints = self.endpoints
        # what is written meanwhile is for the next turn
        self.endpoints = []
        self.is_due = False
        endpoints.reverse()
        try:
            while endpoints:
                endpoint = endpoints.pop()
                endpoint.is_gathered = False
                endpoint.flush()
                endpoint.callbacks.on_flushed(endpoint)
        finally:
            # one that failed does not hold up the others
            while endpoints:
                endpoint = endpoints.pop()
                endpoint.is_gathered = False
                self.add(endpoint)


cdef GatheredWrites gathered_writes(Arena arena, object call_soon):
    cdef GatheredWrites writes = <GatheredWrites>arena.gathered_writes
    if writes is None:
        writes = GatheredWrites.__new__(GatheredWrites)
        writes.call_soon = call_soon
        writes.endpoints = []
        arena.gathered_writes = writes
    return writes
