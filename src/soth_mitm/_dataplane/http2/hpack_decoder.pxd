# Header blocks in (RFC 7541 section 3): a whole block becomes a list of fields, each of them a line of a head.

from libc.stdint cimport uint32_t

from soth_mitm._dataplane.wire.fields cimport Field
from soth_mitm._dataplane.http2.hpack_table cimport HpackTable
from soth_mitm._dataplane.http2.octets cimport Octets


# What is wrong with a block. Each is a connection error COMPRESSION_ERROR (RFC 9113 section 4.3), for the table is of no use afterwards.
cdef enum HpackError:
    HPACK_OK = 0
    HPACK_CUT              # the block ends inside of a field
    HPACK_INTEGER          # over 2^28
    HPACK_INDEX            # stands for nothing
    HPACK_HUFFMAN
    HPACK_UPDATE           # of the table's size: too large, or not at the block's beginning


# The fields of one block, as lines of a head: `name: value CRLF`, one behind the other. Used again for the next block.
cdef class FieldList:
    cdef Octets lines
    cdef Field* fields             # `line`, `value` and the lengths are set; `name` and `sensitive` too
    cdef int count
    cdef int field_capacity
    cdef readonly Py_ssize_t octets    # of the list as RFC 9113 section 6.5.2 counts them: also of those that were left out
    cdef Py_ssize_t limit              # of `octets`: a field that would exceed it is left out, and so are those behind it
    cdef readonly bint is_over

    cdef void clear(self, Py_ssize_t limit) noexcept
    cdef int add_line(self, const char* line, uint32_t name_len, uint32_t value_len, bint sensitive) except -1
    # The line that stands behind the others already becomes a field, unless it is too much
    cdef int take_line(self, uint32_t name_len, uint32_t value_len, bint sensitive) except -1


cdef class HpackDecoder:
    cdef HpackTable table

    # Decode one whole block into `out`, which was cleared. An HpackError, and -1 with an exception for a lack of memory.
    cdef int decode(self, const char* block, Py_ssize_t length, FieldList out) except -1
    cdef int read_literal(self, const char** at, const char* end, int prefix, FieldList out, uint32_t* name_len,
                          uint32_t* value_len) except -1
    cdef int read_string(self, const char** at, const char* end, FieldList out, Py_ssize_t offset, uint32_t* length) except -1


# One line for people
cdef str hpack_error_text(int error)
