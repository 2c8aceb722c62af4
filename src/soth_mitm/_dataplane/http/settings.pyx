"""A configuration snapshot as the data plane uses it, and the counters that it keeps."""

cimport cython

from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.http.hooks cimport Hooks


@cython.final
cdef class Counters:
    """What the data plane counts; all start at zero and belong to one loop. `soth_mitm.metrics` says what each means."""


@cython.final
cdef class Plane:
    """One configuration snapshot on one loop. Every limit and deadline is set by whoever makes it, before the first connection."""

    def __cinit__(self, Arena arena not None, Hooks hooks not None, Counters counters not None, **settings):
        self.arena = arena
        self.hooks = hooks
        self.counters = counters

    def __init__(self, Arena arena, Hooks hooks, Counters counters, **settings):
        for name, value in settings.items():
            setattr(self, name, value)
