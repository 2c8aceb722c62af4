# The dynamic table of HPACK (RFC 7541 sections 2.3 and 4), and what an index stands for. One for each direction of a connection.

from libc.stdint cimport int64_t, uint32_t, uint8_t


cdef extern from "hpack_static.h" nogil:
    enum:
        SOTH_HPACK_STATIC_COUNT

    ctypedef struct SothHpackStatic:
        const char* line
        uint8_t name_len
        uint8_t value_len

    const SothHpackStatic soth_hpack_static[62]


cdef enum:
    ENTRY_OVERHEAD = 32    # octets that an entry counts besides its name and value (RFC 7541 section 4.1)
    DEFAULT_TABLE = 4096   # octets, RFC 9113 section 6.5.2; never more of it is used, whatever a peer allows
    MAX_ENTRIES = DEFAULT_TABLE // ENTRY_OVERHEAD


# One field, as the line `name: value CRLF`. Borrowed: valid until the table is added to.
cdef struct Entry:
    const char* line
    uint32_t name_len
    uint32_t value_len


cdef struct Place:
    uint32_t at            # of its line in the table's block
    uint32_t name_len
    uint32_t value_len


cdef class HpackTable:
    cdef char* block           # the lines, the oldest first; NULL while nothing was ever added
    cdef uint32_t capacity
    cdef uint32_t end          # behind the newest line
    cdef Place places[MAX_ENTRIES]     # a ring
    cdef int newest            # place of the newest entry
    cdef int count
    cdef readonly int64_t added        # entries since the beginning: the newest is number `added`, those evicted included
    cdef readonly Py_ssize_t size      # as RFC 7541 counts it
    cdef readonly Py_ssize_t limit

    # What an index stands for, 1 being the first static entry; False when it stands for nothing
    cdef bint find(self, uint32_t index, Entry* entry) noexcept
    # Add a field whose bytes do not lie in the table; evicts the oldest ones, all of them for one that is too large
    cdef int add(self, const char* name, uint32_t name_len, const char* value, uint32_t value_len) except -1
    # Hold at most `limit` octets from now on, DEFAULT_TABLE at most
    cdef void set_limit(self, Py_ssize_t limit) noexcept

    cdef void evict(self, Py_ssize_t room) noexcept            # until `room` more octets fit
    cdef int make_room(self, uint32_t length) except -1        # of the block, behind `end`
