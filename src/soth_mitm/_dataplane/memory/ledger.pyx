"""The debug ledger: the only module state of the data plane, and only in debug builds. A leak
concerns the process.
"""

from soth_mitm._dataplane.memory.ledger cimport LEDGER, LEDGER_ENTRIES

# module state on purpose: see the docstring
cdef int[LEDGER_ENTRIES] totals

NAMES = ("blocks", "endpoints", "flows", "deadlines", "hooks")


cdef void count(Entry entry, int change) noexcept nogil:
    totals[<int>entry] += change


def counts():
    """Return what is lent or open by kind; an empty dict on a release build, which does not count.
    """
    if not LEDGER:
        return {}
    return {NAMES[entry]: totals[entry] for entry in range(len(NAMES))}
