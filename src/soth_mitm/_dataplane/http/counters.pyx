"""The counters of one proxy that the data plane keeps."""

cimport cython


@cython.final
cdef class Counters:
    """What the data plane counts; all start at zero and belong to one loop. `soth_mitm.metrics` says what each means."""
