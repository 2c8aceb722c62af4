"""Header blocks in: HPACK decoded straight into lines of a head (RFC 7541).

A string is decoded once, to the place where its line stands; a field that is in a table is one copy. The size of the list is counted before
a field is written out, so a block of references to one large entry (an "HPACK bomb") costs nothing above the limit. A block is always read
to its end, for the table has to follow the peer's.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from soth_mitm._dataplane.wire.fields cimport Field, field_name
from soth_mitm._dataplane.http2.hpack_table cimport DEFAULT_TABLE, ENTRY_OVERHEAD, Entry, HpackTable
from soth_mitm._dataplane.http2.octets cimport Octets

cdef extern from "huffman.h" nogil:
    enum:
        SOTH_HUFFMAN_MALFORMED

    void soth_huffman_prepare() noexcept
    size_t soth_huffman_decoded_room(size_t n) noexcept
    Py_ssize_t soth_huffman_decode(const char* p, size_t n, char* out) noexcept

cdef enum:
    INDEXED = 0x80
    INCREMENTAL = 0x40
    UPDATE = 0x20
    NEVER_INDEXED = 0x10
    HUFFMAN = 0x80

    MAX_INTEGER = 1 << 28      # no length or index of a legal block comes near it; five octets at most
    LINE_OVERHEAD = 4
    FIRST_FIELDS = 64

ERROR_TEXTS = {
    HPACK_CUT: "a header block ends in the middle of a field",
    HPACK_INTEGER: "a header block holds an integer over 2^28",
    HPACK_INDEX: "a header block refers to a table entry that does not exist",
    HPACK_HUFFMAN: "a header block holds a malformed Huffman string",
    HPACK_UPDATE: "a header block changes the table's size to more than 4096, or not at its beginning",
}

soth_huffman_prepare()


cdef int read_integer(const char** at, const char* end, int prefix, uint32_t* value) noexcept nogil:
    """Read an integer whose first octet gives its `prefix` lowest bits (RFC 7541 section 5.1); an HpackError."""
    cdef uint32_t mask = (1 << prefix) - 1, total
    cdef uint8_t octet
    cdef int shift = 0
    if at[0] == end:
        return HPACK_CUT
    total = <uint8_t>at[0][0] & mask
    at[0] += 1
    if total < mask:
        value[0] = total
        return HPACK_OK
    while True:
        if at[0] == end:
            return HPACK_CUT
        octet = <uint8_t>at[0][0]
        at[0] += 1
        if shift > 28 or (shift == 28 and octet & 0x7F):
            # 4 octets of 7 bits hold all that is legal; RFC 7541 section 5.1 wants a limit for zeros behind them too
            return HPACK_INTEGER
        total += <uint32_t>(octet & 0x7F) << shift
        shift += 7
        if total > MAX_INTEGER:
            return HPACK_INTEGER
        if not octet & 0x80:
            value[0] = total
            return HPACK_OK


@cython.final
cdef class FieldList:
    """The fields of one block."""

    def __cinit__(self):
        self.lines = Octets()

    def __dealloc__(self):
        free(self.fields)

    cdef void clear(self, Py_ssize_t limit) noexcept:
        self.lines.clear()
        self.count = 0
        self.octets = 0
        self.limit = limit
        self.is_over = False

    cdef int add_line(self, const char* line, uint32_t name_len, uint32_t value_len, bint sensitive) except -1:
        if not self.is_over and self.octets + name_len + value_len + ENTRY_OVERHEAD <= self.limit:
            self.lines.reserve(<Py_ssize_t>name_len + value_len + LINE_OVERHEAD)
            memcpy(self.lines.data + self.lines.size, line, <size_t>name_len + value_len + LINE_OVERHEAD)
        return self.take_line(name_len, value_len, sensitive)

    cdef int take_line(self, uint32_t name_len, uint32_t value_len, bint sensitive) except -1:
        cdef Field* field
        cdef Field* fields
        cdef int capacity
        self.octets += <Py_ssize_t>name_len + value_len + ENTRY_OVERHEAD
        if self.is_over or self.octets > self.limit:
            self.is_over = True
            return 0
        if self.count == self.field_capacity:
            capacity = 2 * self.field_capacity if self.field_capacity else FIRST_FIELDS
            fields = <Field*>realloc(self.fields, capacity * sizeof(Field))
            if fields == NULL:
                raise MemoryError()
            self.fields = fields
            self.field_capacity = capacity
        field = &self.fields[self.count]
        field.line = <uint32_t>self.lines.size
        field.line_len = name_len + value_len + LINE_OVERHEAD
        field.name_len = name_len
        field.value = <uint32_t>self.lines.size + name_len + 2
        field.value_len = value_len
        field.name = <uint8_t>field_name(self.lines.data + self.lines.size, name_len)
        field.hop = 0
        field.sensitive = sensitive
        self.count += 1
        self.lines.size += field.line_len
        return 0


@cython.final
cdef class HpackDecoder:
    """Decodes the header blocks of one direction of one connection, in their order."""

    def __cinit__(self):
        self.table = HpackTable()

    cdef int decode(self, const char* block, Py_ssize_t length, FieldList out) except -1:
        cdef const char* at = block
        cdef const char* end = block + length
        cdef uint32_t value, name_len = 0, value_len = 0
        cdef uint8_t first
        cdef bint begun = False
        cdef Entry entry
        cdef int error
        while at < end:
            first = <uint8_t>at[0]
            if first & INDEXED:
                error = read_integer(&at, end, 7, &value)
                if error:
                    return error
                if not self.table.find(value, &entry):
                    return HPACK_INDEX
                out.add_line(entry.line, entry.name_len, entry.value_len, False)
            elif first & INCREMENTAL:
                error = self.read_literal(&at, end, 6, out, &name_len, &value_len)
                if error:
                    return error
                self.table.add(out.lines.data + out.lines.size, name_len, out.lines.data + out.lines.size + name_len + 2, value_len)
                out.take_line(name_len, value_len, False)
            elif first & UPDATE:
                error = read_integer(&at, end, 5, &value)
                if error:
                    return error
                if begun or value > DEFAULT_TABLE:
                    return HPACK_UPDATE
                self.table.set_limit(value)
                continue
            else:
                error = self.read_literal(&at, end, 4, out, &name_len, &value_len)
                if error:
                    return error
                out.take_line(name_len, value_len, (first & NEVER_INDEXED) != 0)
            begun = True
        return HPACK_OK

    cdef int read_literal(self, const char** at, const char* end, int prefix, FieldList out, uint32_t* name_len,
                          uint32_t* value_len) except -1:
        """Read name and value to where the next line of `out` begins."""
        cdef uint32_t index
        cdef Entry entry
        cdef char* line
        cdef int error = read_integer(at, end, prefix, &index)
        if error:
            return error
        if index:
            if not self.table.find(index, &entry):
                return HPACK_INDEX
            name_len[0] = entry.name_len
            out.lines.reserve(<Py_ssize_t>entry.name_len + LINE_OVERHEAD)
            memcpy(out.lines.data + out.lines.size, entry.line, entry.name_len)
        else:
            error = self.read_string(at, end, out, 0, name_len)
            if error:
                return error
        error = self.read_string(at, end, out, <Py_ssize_t>name_len[0] + 2, value_len)
        if error:
            return error
        line = out.lines.data + out.lines.size
        line[name_len[0]] = c":"
        line[name_len[0] + 1] = c" "
        line += <Py_ssize_t>name_len[0] + 2 + value_len[0]
        line[0] = c"\r"
        line[1] = c"\n"
        return HPACK_OK

    cdef int read_string(self, const char** at, const char* end, FieldList out, Py_ssize_t offset, uint32_t* length) except -1:
        """Read a string to `offset` behind the end of `out`, with room for what a line has besides."""
        cdef uint32_t coded
        cdef Py_ssize_t decoded
        cdef bint huffman
        cdef int error
        if at[0] == end:
            return HPACK_CUT
        huffman = <uint8_t>at[0][0] & HUFFMAN
        error = read_integer(at, end, 7, &coded)
        if error:
            return error
        if <Py_ssize_t>coded > end - at[0]:
            return HPACK_CUT
        if huffman:
            out.lines.reserve(offset + <Py_ssize_t>soth_huffman_decoded_room(coded) + LINE_OVERHEAD)
            decoded = soth_huffman_decode(at[0], coded, out.lines.data + out.lines.size + offset)
            if decoded == SOTH_HUFFMAN_MALFORMED:
                return HPACK_HUFFMAN
            length[0] = <uint32_t>decoded
        else:
            out.lines.reserve(offset + <Py_ssize_t>coded + LINE_OVERHEAD)
            memcpy(out.lines.data + out.lines.size + offset, at[0], coded)
            length[0] = coded
        at[0] += coded
        return HPACK_OK

    def decode_block(self, bytes block not None, Py_ssize_t limit=65536):
        """Decode one block: its (name, value, never indexed) triples, and whether the list is over `limit`. ValueError says why not."""
        cdef FieldList out = FieldList()
        cdef list fields = []
        cdef Field* field
        cdef int i, error
        out.clear(limit)
        error = self.decode(block, len(block), out)
        if error:
            raise ValueError(hpack_error_text(error))
        for i in range(out.count):
            field = &out.fields[i]
            fields.append((PyBytes_FromStringAndSize(out.lines.data + field.line, field.name_len),
                           PyBytes_FromStringAndSize(out.lines.data + field.value, field.value_len), bool(field.sensitive)))
        return fields, bool(out.is_over)

    @property
    def table_size(self):
        """Octets in the dynamic table."""
        return self.table.size


cdef str hpack_error_text(int error):
    return ERROR_TEXTS[error]
