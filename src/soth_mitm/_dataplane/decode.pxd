# Content codings (RFC 9110 section 8.4) for what handlers see: gzip, deflate (zlib and raw), br, zstd, and stacks of them.

# Incremental decoder of a whole stack; `codings` is the Content-Encoding value. Output per call and in total is bounded.
cdef class Decoder:
    cdef list stages
    cdef Py_ssize_t limit          # total output bytes allowed; beyond it decoding stops and `error` says so
    cdef readonly Py_ssize_t produced
    cdef readonly str error        # None while all is well

    cdef bytes feed(self, bytes data)      # decoded bytes, b"" when there is none yet or after an error
    cdef bytes finish(self)                # the tail; sets `error` when the stream is cut


# None when the value names no coding (absent, empty, identity only)
cdef Decoder decoder_for(bytes content_encoding, Py_ssize_t limit)

# A whole body: (decoded, None), or (body, reason) when it cannot be decoded within `limit`
cdef tuple decode_body(bytes content_encoding, bytes body, Py_ssize_t limit)
