# What is seen of a message on its way: one direction of it, framed for the handler. A tap calls no hook.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.wire.decode cimport Decoder
from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.wire.head cimport Head


cdef enum:
    FRAMED_AT_ONCE = 2048      # bytes of content: one of them may be a frame, and each frame a call of a hook
    MOST_STEPS = 64            # in which decoded content is framed in one turn of the loop


cdef class FrameTap:
    cdef Settings settings
    cdef BudgetShare share
    cdef Framer framer                 # None: it has ended, or could not be decoded
    cdef Decoder decoder
    cdef list found                    # StreamChunks that were framed and not taken yet
    cdef bytes decoded                 # content that is not framed yet, from `decoded_at` on; None: it all is
    cdef Py_ssize_t decoded_at
    cdef str direction
    cdef int64_t sequence              # of the next frame that the handler is shown
    cdef Py_ssize_t held               # bytes that the framer holds, as the budget counts them
    cdef bytes trailers                # that gRPC-Web has in its content, or None

    cdef int observe(self, View content) except -1
    cdef int frame(self, const char* data, Py_ssize_t length) except -1
    cdef int frame_decoded(self) except -1         # as much of it as one turn of the loop may
    cdef bint has_enough(self) except -1           # for one turn of the loop
    cdef int finish(self) except -1                # the message has ended
    cdef int stop(self) except -1                  # nothing more is shown
    cdef int count(self) except -1


cdef FrameTap new_frame_tap(Settings settings, BudgetShare share, int stream, Head head, str direction)
