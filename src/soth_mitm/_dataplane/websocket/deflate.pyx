"""Compression of WebSocket messages: permessage-deflate (RFC 7692).

A message is compressed as blocks of DEFLATE that end with an empty one, whose last four octets, 00
00 FF FF, are left out. zlib does the work. We read with a window of 15 bits, whatever was agreed,
since it reads what any smaller one wrote.
"""

import zlib

cimport cython

cdef bytes TAIL = b"\x00\x00\xff\xff"
# An empty message, whatever came before it (RFC 7692 section 7.2.3.6)
cdef bytes EMPTY = b"\x00"

cdef enum:
    RAW_WINDOW = -15
    LEVEL = 1                  # level 6 takes three times as long and saves a fifth
    MEMORY_LEVEL = 5


@cython.final
cdef class Inflater:
    """Inflater of one direction; `takeover`: messages may refer to those before them."""

    def __cinit__(self, bint takeover):
        self.takeover = takeover
        self.rest = b""

    cdef int begin(self) except -1:
        if not self.takeover:
            self.stream = None
        self.has_input = self.is_ending = self.is_pending = False
        self.rest = b""
        return 0

    cdef int feed(self, bytes payload) except -1:
        if payload:
            self.has_input = self.is_pending = True
            self.rest = self.rest + payload if self.rest else payload
        return 0

    cdef int end(self) except -1:
        self.is_ending = True
        # Some write an empty message as no octet, which leaves out the whole block. And behind the
        # last block of a stream nothing was left out, unless another stream has begun: an octet
        # there begins one (RFC 7692 section 7.2.3.4).
        if self.has_input and (self.stream is not None or self.rest):
            self.rest += TAIL
            self.is_pending = True
        return 0

    cdef bytes take(self, Py_ssize_t* allowance):
        cdef bytes found
        cdef Py_ssize_t most
        if allowance[0] <= 0 or not self.is_pending:
            return b""
        if self.stream is None:
            self.stream = zlib.decompressobj(RAW_WINDOW)
            allowance[0] -= STREAM_OCTETS
        most = max(allowance[0], 1)
        try:
            found = self.stream.decompress(self.rest, most)
        except zlib.error:
            return None
        allowance[0] -= len(found)
        if self.stream.eof:
            # a block said that it is the last one: what follows is a stream of its own
            self.rest = self.stream.unused_data
            self.stream = None
            if self.is_ending and self.rest == TAIL:
                self.rest = b""
            self.is_pending = len(self.rest) > 0
        else:
            self.rest = self.stream.unconsumed_tail
            self.is_pending = len(self.rest) > 0 or len(found) >= most
        return found


@cython.final
cdef class Deflater:
    """Compressor of one direction; new_deflater() makes one."""

    cdef bytes compress(self, bytes message):
        if not message:
            return EMPTY
        stream = self.stream
        if stream is None:
            stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -self.bits, MEMORY_LEVEL)
            if self.takeover:
                self.stream = stream
        return (stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


cdef Deflater new_deflater(int agreed_bits, bint takeover):
    cdef Deflater deflater
    if agreed_bits < LEAST_OWN_BITS:
        return None
    deflater = Deflater.__new__(Deflater)
    deflater.bits = min(agreed_bits, OWN_BITS)
    deflater.takeover = takeover
    return deflater
