"""The dynamic table of HPACK: entries over one block of bytes, each kept as the line that a head needs."""

cimport cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

cdef enum:
    LINE_OVERHEAD = 4      # ": " and CRLF
    FIRST_BLOCK = 1024
    # Live lines take less than DEFAULT_TABLE; twice as much, so that they are moved to the front once in a while only
    LAST_BLOCK = 2 * DEFAULT_TABLE


@cython.final
cdef class HpackTable:
    """The dynamic table of one direction of one connection."""

    def __cinit__(self):
        self.limit = DEFAULT_TABLE

    def __dealloc__(self):
        free(self.block)

    cdef bint find(self, uint32_t index, Entry* entry) noexcept:
        cdef Place* place
        if index == 0:
            return False
        if index <= SOTH_HPACK_STATIC_COUNT:
            entry.line = soth_hpack_static[index].line
            entry.name_len = soth_hpack_static[index].name_len
            entry.value_len = soth_hpack_static[index].value_len
            return True
        index -= SOTH_HPACK_STATIC_COUNT + 1
        if index >= <uint32_t>self.count:
            return False
        place = &self.places[(<uint32_t>self.newest + MAX_ENTRIES - index) % MAX_ENTRIES]
        entry.line = self.block + place.at
        entry.name_len = place.name_len
        entry.value_len = place.value_len
        return True

    cdef int add(self, const char* name, uint32_t name_len, const char* value, uint32_t value_len) except -1:
        cdef Py_ssize_t octets = <Py_ssize_t>name_len + value_len + ENTRY_OVERHEAD
        cdef uint32_t length
        cdef Place* place
        cdef char* line
        self.evict(octets)
        if octets > self.limit:
            # RFC 7541 section 4.4: no error, and the table is empty now
            return 0
        length = name_len + value_len + LINE_OVERHEAD
        self.make_room(length)
        line = self.block + self.end
        memcpy(line, name, name_len)
        memcpy(line + name_len, b": ", 2)
        memcpy(line + name_len + 2, value, value_len)
        memcpy(line + length - 2, b"\r\n", 2)
        self.newest = (self.newest + 1) % MAX_ENTRIES
        place = &self.places[self.newest]
        place.at = self.end
        place.name_len = name_len
        place.value_len = value_len
        self.end += length
        self.count += 1
        self.added += 1
        self.size += octets
        return 0

    cdef void set_limit(self, Py_ssize_t limit) noexcept:
        self.limit = min(limit, DEFAULT_TABLE)
        self.evict(0)

    cdef void evict(self, Py_ssize_t room) noexcept:
        cdef Place* oldest
        while self.count and self.size + room > self.limit:
            oldest = &self.places[(self.newest + MAX_ENTRIES + 1 - self.count) % MAX_ENTRIES]
            self.size -= <Py_ssize_t>oldest.name_len + oldest.value_len + ENTRY_OVERHEAD
            self.count -= 1
        if self.count == 0:
            self.end = 0

    cdef int make_room(self, uint32_t length) except -1:
        cdef uint32_t start = 0, live, capacity = self.capacity
        cdef char* block
        cdef int i
        if self.end + length <= self.capacity:
            return 0
        if self.count:
            start = self.places[(self.newest + MAX_ENTRIES + 1 - self.count) % MAX_ENTRIES].at
        live = self.end - start
        while capacity < 2 * (live + length) and capacity < LAST_BLOCK:
            capacity = 2 * capacity if capacity else FIRST_BLOCK
        if capacity == self.capacity:
            memmove(self.block, self.block + start, live)
        else:
            block = <char*>malloc(capacity)
            if block == NULL:
                raise MemoryError()
            if live:
                memcpy(block, self.block + start, live)
            free(self.block)
            self.block = block
            self.capacity = capacity
        for i in range(self.count):
            self.places[(self.newest + MAX_ENTRIES - i) % MAX_ENTRIES].at -= start
        self.end = live
        return 0
