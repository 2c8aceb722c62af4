# A request's head as a decision of the handler changes it.

from soth_mitm._dataplane.wire.head cimport Head


# The head that `decision`, a HandlerDecision.forward(), makes of `head`; `head` itself if that changes nothing. `authority` is the
# new one, or None. ValueError says why there is no such head.
cdef Head changed_head(Head head, object decision, bytes authority, Py_ssize_t limit, int most_fields)
