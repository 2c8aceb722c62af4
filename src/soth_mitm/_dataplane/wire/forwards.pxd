# How far a request may still go (RFC 9110 section 7.6.2), and what answers it where it ends.

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t

from soth_mitm._dataplane.wire.head cimport Field, Head
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower


# Is the field Max-Forwards?
cdef inline bint is_forwards(Head head, Field* field) noexcept:
    return field.name_len == 12 and soth_equals_lower(
        PyBytes_AS_STRING(head.raw) + field.line, b"max-forwards", 12)

# How many times a TRACE or OPTIONS request may still be forwarded; -1: it does not say, or it has
# another method
cdef int64_t forwards_left(Head head) noexcept

# The content of our answer to a TRACE that ends here: the request without what is secret
# (RFC 9110 section 9.3.8)
cdef bytes traced_request(Head head)
