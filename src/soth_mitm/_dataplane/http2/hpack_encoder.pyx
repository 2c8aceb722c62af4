"""Header blocks out: HPACK (RFC 7541) with the policy of nghttp2 for what to keep in the table.

Credentials, cookies short enough to be guessed, and what came never indexed are never indexed (RFC 7541 section 7.1). Fields that differ
from message to message are not put into the table, where they would push out others. Strings are Huffman-coded where that is shorter.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from soth_mitm._dataplane.http2.hpack_table cimport (
    DEFAULT_TABLE, ENTRY_OVERHEAD, SOTH_HPACK_STATIC_COUNT, Entry, HpackTable, soth_hpack_static,
)
from soth_mitm._dataplane.http2.octets cimport Octets

cdef extern from "huffman.h" nogil:
    void soth_huffman_prepare() noexcept
    size_t soth_huffman_encoded_size(const char* p, size_t n) noexcept
    void soth_huffman_encode(const char* p, size_t n, char* out) noexcept

cdef enum:
    INDEXED = 0x80
    INCREMENTAL = 0x40
    UPDATE = 0x20
    NEVER_INDEXED = 0x10
    NOT_INDEXED = 0
    HUFFMAN = 0x80

    INTEGER_ROOM = 6
    SHORT_COOKIE = 20          # octets below which a cookie may be found by guessing (nghttp2's rule)
    LINE_OVERHEAD = 4

soth_huffman_prepare()


cdef extern from *:
    """
    /* found by trying: with it no two names or entries of the static table share a slot */
    #define SOTH_HPACK_FACTOR UINT64_C(0xec1e07d7599c8f1d)
    """
    const uint64_t FACTOR "SOTH_HPACK_FACTOR"


cdef inline uint64_t mix(uint64_t value, const char* p) noexcept nogil:
    """Take eight bytes in."""
    cdef uint64_t word
    memcpy(&word, p, 8)
    value = (value ^ word) * FACTOR
    return value ^ (value >> 32)


cdef inline uint64_t hash_of(const char* p, Py_ssize_t length, uint64_t seed) noexcept nogil:
    """As much as telling one field of a message from another needs: the first and the last 16 bytes, and the length."""
    cdef uint64_t value = seed ^ <uint64_t>length, word = 0
    cdef Py_ssize_t i
    if length < 8:
        for i in range(length):
            word = word << 8 | <uint8_t>p[i]
        value = (value ^ word) * FACTOR
        return value ^ (value >> 32)
    value = mix(value, p)
    if length > 16:
        value = mix(value, p + 8)
        if length > 24:
            value = mix(value, p + length - 16)
    return mix(value, p + length - 8)


cdef inline uint32_t slot_of(uint64_t value) noexcept nogil:
    return <uint32_t>(value >> 40) & (SLOTS - 1)


cdef inline bint is_name(const char* name, uint32_t name_len, const char* known, uint32_t known_len) noexcept nogil:
    return name_len == known_len and memcmp(name, known, known_len) == 0


cdef int policy_of(const char* name, uint32_t name_len, uint32_t value_len) noexcept nogil:
    """How a field is written that is in no table: the first octet's bits."""
    if name_len == 13 and is_name(name, name_len, b"authorization", 13):
        return NEVER_INDEXED
    if name_len == 19 and is_name(name, name_len, b"proxy-authorization", 19):
        return NEVER_INDEXED
    if name_len == 6 and is_name(name, name_len, b"cookie", 6):
        return NEVER_INDEXED if value_len < SHORT_COOKIE else INCREMENTAL
    if name_len == 5 and is_name(name, name_len, b":path", 5):
        return NOT_INDEXED
    if name_len == 3 and is_name(name, name_len, b"age", 3):
        return NOT_INDEXED
    if name_len == 4 and is_name(name, name_len, b"etag", 4):
        return NOT_INDEXED
    if name_len == 8 and is_name(name, name_len, b"location", 8):
        return NOT_INDEXED
    if name_len == 10 and is_name(name, name_len, b"set-cookie", 10):
        return NOT_INDEXED
    if name_len == 13 and is_name(name, name_len, b"if-none-match", 13):
        return NOT_INDEXED
    if name_len == 14 and is_name(name, name_len, b"content-length", 14):
        return NOT_INDEXED
    if name_len == 17 and is_name(name, name_len, b"if-modified-since", 17):
        return NOT_INDEXED
    return INCREMENTAL


cdef inline char* write_integer(char* at, uint32_t value, int prefix, int bits) noexcept nogil:
    """Write `value` behind the `bits` of the first octet (RFC 7541 section 5.1); at most INTEGER_ROOM octets."""
    cdef uint32_t mask = (1 << prefix) - 1
    if value < mask:
        at[0] = <char>(bits | <int>value)
        return at + 1
    at[0] = <char>(bits | <int>mask)
    at += 1
    value -= mask
    while value >= 0x80:
        at[0] = <char>(0x80 | (value & 0x7F))
        at += 1
        value >>= 7
    at[0] = <char>value
    return at + 1


cdef inline char* write_string(char* at, const char* p, uint32_t length) noexcept nogil:
    cdef size_t coded = soth_huffman_encoded_size(p, length)
    if coded < length:
        at = write_integer(at, <uint32_t>coded, 7, HUFFMAN)
        soth_huffman_encode(p, length, at)
        return at + coded
    at = write_integer(at, length, 7, 0)
    memcpy(at, p, length)
    return at + length


@cython.final
cdef class HpackEncoder:
    """Encodes the header blocks of one direction of one connection, in the order in which they leave."""

    def __cinit__(self):
        cdef uint32_t index
        cdef uint64_t hashed
        self.table = HpackTable()
        self.least = -1
        # downwards: of several entries with one name the first is to be found
        for index in range(SOTH_HPACK_STATIC_COUNT, 0, -1):
            hashed = hash_of(soth_hpack_static[index].line, soth_hpack_static[index].name_len, 0)
            self.static_named[slot_of(hashed)] = index
            hashed = hash_of(soth_hpack_static[index].line + soth_hpack_static[index].name_len + 2, soth_hpack_static[index].value_len,
                             hashed)
            self.static_exact[slot_of(hashed)] = index

    cdef void set_limit(self, Py_ssize_t limit) noexcept:
        limit = min(limit, DEFAULT_TABLE)
        if limit == self.table.limit and self.least < 0:
            return
        self.least = limit if self.least < 0 else min(self.least, limit)
        self.table.set_limit(limit)

    cdef int begin(self, Octets out) except -1:
        cdef char* at
        if self.least < 0:
            return 0
        # RFC 7541 section 4.2: the smallest size in between, so that the peer evicts what we did, then the one that holds
        out.reserve(2 * INTEGER_ROOM)
        at = out.data + out.size
        if self.least < self.table.limit:
            at = write_integer(at, <uint32_t>self.least, 5, UPDATE)
        at = write_integer(at, <uint32_t>self.table.limit, 5, UPDATE)
        out.size = at - out.data
        self.least = -1
        return 0

    cdef int encode(self, Octets out, const char* line, uint32_t name_len, const char* value, uint32_t value_len,
                    bint sensitive) except -1:
        cdef uint64_t named = hash_of(line, name_len, 0), exact = hash_of(value, value_len, named)
        cdef uint32_t index
        cdef int policy = NEVER_INDEXED if sensitive else policy_of(line, name_len, value_len)
        cdef char* at
        out.reserve(2 * INTEGER_ROOM + <Py_ssize_t>name_len + value_len + INTEGER_ROOM)
        at = out.data + out.size
        if policy != NEVER_INDEXED:
            index = self.find_field(slot_of(exact), line, name_len, value, value_len)
            if index:
                out.size = write_integer(at, index, 7, INDEXED) - out.data
                return 0
        index = self.find_name(slot_of(named), line, name_len)
        # what would empty the table is better left out of it
        if policy == INCREMENTAL and <Py_ssize_t>name_len + value_len + ENTRY_OVERHEAD > self.table.limit * 3 // 4:
            policy = NOT_INDEXED
        at = write_integer(at, index, 6 if policy == INCREMENTAL else 4, policy)
        if index == 0:
            at = write_string(at, line, name_len)
        at = write_string(at, value, value_len)
        out.size = at - out.data
        return self.add(slot_of(exact), slot_of(named), line, name_len, value, value_len) if policy == INCREMENTAL else 0

    cdef uint32_t find_name(self, uint32_t slot, const char* name, uint32_t name_len) noexcept:
        cdef Entry entry
        cdef uint32_t index = self.static_named[slot]
        if index and self.table.find(index, &entry) and is_name(name, name_len, entry.line, entry.name_len):
            return index
        if self.named[slot] == 0 or self.named[slot] <= self.table.added - self.table.count:
            return 0
        index = <uint32_t>(SOTH_HPACK_STATIC_COUNT + 1 + self.table.added - self.named[slot])
        if self.table.find(index, &entry) and is_name(name, name_len, entry.line, entry.name_len):
            return index
        return 0

    cdef uint32_t find_field(self, uint32_t slot, const char* name, uint32_t name_len, const char* value, uint32_t value_len) noexcept:
        cdef Entry entry
        cdef uint32_t index = self.static_exact[slot]
        cdef int turn
        for turn in range(2):
            if turn == 1:
                if self.exact[slot] == 0 or self.exact[slot] <= self.table.added - self.table.count:
                    return 0
                index = <uint32_t>(SOTH_HPACK_STATIC_COUNT + 1 + self.table.added - self.exact[slot])
            if (index and self.table.find(index, &entry) and is_name(name, name_len, entry.line, entry.name_len)
                    and is_name(value, value_len, entry.line + entry.name_len + 2, entry.value_len)):
                return index
        return 0

    cdef int add(self, uint32_t exact, uint32_t named, const char* name, uint32_t name_len, const char* value,
                 uint32_t value_len) except -1:
        self.table.add(name, name_len, value, value_len)
        self.exact[exact] = self.table.added
        self.named[named] = self.table.added
        return 0

    def encode_block(self, fields not None):
        """Encode (name, value, never indexed) triples of bytes, names in lower case, as one block."""
        cdef Octets out = Octets()
        cdef bytes name, value
        self.begin(out)
        for name, value, sensitive in fields:
            self.encode(out, name, <uint32_t>len(name), value, <uint32_t>len(value), sensitive)
        return (<char*>out.data)[:out.size] if out.size else b""

    def allow_table(self, Py_ssize_t size):
        """Use at most `size` octets for the table: what the peer's SETTINGS say. The next block begins with it."""
        self.set_limit(size)

    @property
    def table_size(self):
        """Octets in the dynamic table."""
        return self.table.size
