# The headers of a message as users see them: a view of a Head, of a trailer block, or of pairs that a user gave.

from soth_mitm._dataplane.wire.head cimport Head


cdef class Headers:
    cdef Head head                 # None when built from pairs or from a block
    cdef bytes block               # field lines without a start line (trailers), or None
    cdef list pairs                # [(name, value)] as bytes, made on first use

    cdef list fields(self)
    cdef bytes first(self, object name)    # None: there is no such header


cdef Head known(Head head)                     # TypeError when it is None: a message made by __new__ alone
cdef Headers headers_of_head(Head head)
cdef Headers headers_of_block(bytes block)     # no headers when it is None
cdef bytes content_encoding_of(Head head)      # all Content-Encoding fields as one value, None when there is none

# What users give as headers (Headers, a mapping, pairs of str or bytes): as pairs of bytes, and pairs as field lines
cdef list pairs_of(object headers)
cdef bytes field_bytes(object text)
cdef bytes block_of(list pairs)
