# Content codings (RFC 9110 section 8.4) for what handlers see: gzip, deflate (zlib and raw), br, zstd, and stacks of them.

cdef enum:
    MAX_CODINGS = 8        # codings stacked in one Content-Encoding
    # gzip members or zstd frames in one body (or in one feed, with `per_feed`): empty ones cost time and give no byte
    MAX_MEMBERS = 10000
    # For content that is decoded as it passes: bytes of one feed, which may become a thousand times as many, and what these may become
    CODED_AT_ONCE = 4096
    DECODED_AT_ONCE = 8388608


# Incremental decoder of a whole stack. Memory is bounded by `limit` whatever the input: a decompression bomb ends in `error`.
# After an error nothing is decoded any more; the feed that met it still returns what came before it, where the library gives that out.
cdef class Decoder:
    cdef list stages               # _Stage, in the order of decoding
    cdef Py_ssize_t limit          # output bytes allowed, in total or for each feed; beyond it decoding stops and `error` says so
    cdef bint per_feed
    cdef Py_ssize_t allowance      # what is left of `limit`
    cdef readonly Py_ssize_t produced
    cdef readonly str error        # None while all is well
    cdef readonly bint overflow    # the error is that the limit was reached; all up to the limit has been given out
    cdef bint too_long             # the error is that the limit was reached, in the end or between two codings

    cpdef bytes feed(self, bytes data)     # decoded bytes, b"" when there is none yet or after an error
    # The same by and by: begin(), pull() with up to CODED_AT_ONCE bytes, and pull() with none while has_more(). Each gives out at most
    # about `most` bytes
    cdef int begin(self) except -1
    cdef bytes pull(self, bytes data, Py_ssize_t most)
    cdef bint has_more(self) noexcept
    cdef Py_ssize_t pending(self) noexcept
    cdef bytes give(self, bytes piece)
    cpdef bytes finish(self)               # the tail; sets `error` when the stream is cut (a stream without a single byte is not)


# None when the value names no coding (absent, empty, identity only). A coding that is not known, or too many of them, gives a Decoder whose
# `error` is set. `per_feed`: the limit holds for each feed by itself, which is what a stream without an end wants. `exact`: what servers
# read in different ways is an error, which is what a decision wants.
cpdef Decoder decoder_for(bytes content_encoding, Py_ssize_t limit, bint per_feed=*, bint exact=*)

# What a decoder made of a whole body, in the form of decode_body
cdef tuple result_of(Decoder decoder, bytes decoded, bytes body, bint cut)

# A whole body: (decoded, None), or (body, reason) when it cannot be decoded within `limit`. `cut`: the body is known to be incomplete, and
# what is there is decoded without complaint about the rest.
cpdef tuple decode_body(bytes content_encoding, bytes body, Py_ssize_t limit, bint cut=*, bint exact=*)

# What Accept-Encoding says (None: there is none) makes content without a coding unacceptable (RFC 9110 section 12.5.3)
cpdef bint refuses_identity(str accept_encoding) except -1
