# What content passes through on its way from one stream to the other, where it is not sent on as it came: a filter, a redactor. Each stage
# gives what may leave to the next one, and the last of them is a SendStage.

from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef enum StageEnding:
    STAGE_GOES_ON = 0
    STAGE_ENDS             # the message ends behind what has left, in order; ContentStage.error says why, None: the handler wants it
    STAGE_CUTS             # it is cut there, because of `error`
    STAGE_ABORTS           # the flow ends now with `error`, which a hook raised


cdef class ContentStage(Waiter):
    cdef ContentStage next             # None: it is the last
    cdef StageEnding ending            # nothing is taken and nothing leaves any more, unless it is STAGE_GOES_ON
    cdef object error

    # Take content, borrowed for the call, in any pieces. Returns how many bytes were taken: all, unless it waits, ends the message, or
    # has done enough for one turn of the loop; the rest is fed again later
    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1
    # Nothing more will be fed: give on what is held, then call next.end(). Comes once, and not while it waits
    cdef int end(self) except -1
    # Bytes that are held. Whoever feeds the stages charges them to the budget
    cdef Py_ssize_t held(self) noexcept
    # It takes nothing, because a hook has suspended. The exchange is told by on_stage_ready() when that is over
    cdef bint is_waiting(self) noexcept
    # A turn of the loop begins
    cdef int begin_turn(self) except -1
    # Nothing of it is wanted any more
    cdef int close(self) except -1


# The last one: what is fed to it is sent. There is one for each try to send a message
cdef class SendStage(ContentStage):
    cdef Stream sink
    cdef bint has_ended                # all of the message was sent; its end, and its trailers, are the exchange's
