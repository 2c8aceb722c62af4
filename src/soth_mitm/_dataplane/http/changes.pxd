# A message's head and its trailers as a decision of the handler changes them.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.wire.head cimport Head


# The head that `decision`, a HandlerDecision.forward(), makes of `head`; `head` itself if that changes nothing. `authority` is the
# new one, or None. ValueError says why there is no such head.
cdef Head changed_head(Head head, object decision, bytes authority, Py_ssize_t limit, int most_fields)

# The same of a response, by a ResponseDecision.change() or replace(). `length` is that of the new body, -1 if it is not known; a change
# has none
cdef Head changed_response_head(Head head, object decision, int64_t length, Py_ssize_t limit, int most_fields)

# The names, in lower case, that `decision` sets or removes: no trailer brings them back. None: there are none
cdef frozenset names_decided(object decision)
# Does `head` carry a signature (RFC 9421, AWS SigV4) in a field that is not among `names`?
cdef bint is_signed(Head head, frozenset names) except -1
# Of field lines that were parsed before, each with its CRLF: those of other names; None if there are none
cdef bytes trailers_without(bytes lines, frozenset names)
