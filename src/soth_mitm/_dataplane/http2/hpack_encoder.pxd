# Header blocks out (RFC 7541 section 6).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from soth_mitm._dataplane.http2.hpack_table cimport HpackTable
from soth_mitm._dataplane.http2.octets cimport Octets


cdef enum:
    SLOTS = 256                        # of each hash: the last field, and the last name, with that hash


cdef class HpackEncoder:
    cdef HpackTable table
    cdef Py_ssize_t least              # the smallest limit since the last block, -1: it did not change
    cdef int64_t exact[SLOTS]          # number of the entry that was added with this hash of its name and value; 0: none
    cdef int64_t named[SLOTS]
    cdef uint8_t static_exact[SLOTS]   # index in the static table
    cdef uint8_t static_named[SLOTS]

    # The peer's SETTINGS_HEADER_TABLE_SIZE: the next block says so
    cdef void set_limit(self, Py_ssize_t limit) noexcept
    # What a block begins with; then its fields in order
    cdef int begin(self, Octets out) except -1
    # A field whose name, `name_len` bytes at `line`, is lower-case already, and whose value lies at `value`
    cdef int encode(self, Octets out, const char* line, uint32_t name_len, const char* value, uint32_t value_len,
                    bint sensitive) except -1

    cdef uint32_t find_name(self, uint32_t slot, const char* name, uint32_t name_len) noexcept
    cdef uint32_t find_field(self, uint32_t slot, const char* name, uint32_t name_len, const char* value, uint32_t value_len) noexcept
    cdef int add(self, uint32_t exact, uint32_t named, const char* name, uint32_t name_len, const char* value,
                 uint32_t value_len) except -1
