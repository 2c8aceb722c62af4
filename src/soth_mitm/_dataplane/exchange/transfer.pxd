# Body bytes on their way from one endpoint to the other, and past the handler's copies.

from soth_mitm._dataplane.http1.framing cimport Body
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.exchange.flow cimport Flow


cdef enum Moved:
    MOVED_SOME = 0         # the source's read buffer holds no more of the body that can be taken now
    MOVED_ALL = 1          # the body is complete
    MOVED_NONSENSE = 2     # it is malformed; body.error says how
    MOVED_OVER = 3         # it is longer than it may be; what made it so was taken and went nowhere
    MOVED_MORE = 4         # there is more, which would take too long: go on in another turn of the loop


# Each returns a Moved
cdef int collect_request(Flow flow, Endpoint source) except -1                     # its body, into the flow
cdef int move_request(Flow flow, Endpoint source, Endpoint target) except -1      # what was collected first
cdef int move_response(Flow flow, Endpoint source, Endpoint target) except -1
