# What is lent or open now, counted in debug builds only (SOTH_MITM_DEBUG=1). Every test ends with
# all counts at zero.

cdef extern from *:
    """
    #ifndef SOTH_MITM_LEDGER
    #define SOTH_MITM_LEDGER 0
    #endif
    """
    const bint LEDGER "SOTH_MITM_LEDGER"


cdef enum Entry:
    LEDGER_BLOCK = 0       # blocks of memory taken from an arena
    LEDGER_ENDPOINT        # endpoints between connection_made and connection_lost
    LEDGER_FLOW            # flows between their request head and their end
    LEDGER_DEADLINE        # armed deadlines
    LEDGER_HOOK            # hooks that suspended and have not returned
    LEDGER_ENTRIES


cdef void count(Entry entry, int change) noexcept nogil


cdef inline void note(Entry entry, int change) noexcept nogil:
    if LEDGER:
        count(entry, change)
