# A filter of one direction of a stream: SSE events, lines of JSON, messages of gRPC or AWS, one at a time through filter_stream_chunk.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.chunk_judge cimport ChunkJudge
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stages cimport ContentStage
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.wire.framer cimport Framer


# The rest of a frame that is longer than one may be
cdef enum LongFrame:
    LONG_NOT = 0           # there is none
    LONG_PASSES
    LONG_DROPS


cdef class ChunkFilter(ContentStage):
    cdef Settings settings
    cdef BudgetShare share
    cdef ExchangeCallbacks owner
    cdef ChunkJudge judge
    cdef Framer framer                 # `single`
    cdef list found                    # what it has just delivered
    cdef bytearray unit                # of the unit that is being received, what has come in earlier feeds
    cdef LongFrame long_frame
    cdef StreamChunk asked             # what the handler was asked about last, or None
    cdef bytes asked_unit              # its unit, while the hook is suspended
    cdef bint asked_whole              # all of it is here
    cdef int left                      # units for this turn of the loop
    cdef bint is_observed              # what has left is shown to on_stream_chunk
    cdef bint is_at_end                # nothing more comes
    cdef bint is_closed
    cdef str direction
    cdef int64_t sequence              # of the next chunk that the handler is asked about
    cdef int64_t shown                 # of the next one that it is shown after it has left

    cdef View unit_view(self) noexcept
    cdef bint is_stopped(self) noexcept
    cdef Py_ssize_t most(self) noexcept                # bytes of the unit, beyond which its frame is too long
    cdef int take_rest(self, const char* data, Py_ssize_t length) except -1    # of a long frame
    cdef int ask(self, bint is_whole) except -1                # a ChunkVerdict
    cdef int apply(self, int verdict, View unit, bint is_whole) except -1
    cdef int replace(self, View unit) except -1
    cdef int leave(self, View unit) except -1
    cdef int give(self, const char* data, Py_ssize_t length) except -1
    cdef int show(self, StreamChunk chunk) except -1
    cdef int stop(self, int verdict) except -1
    cdef int damage(self) except -1


cdef ChunkFilter new_chunk_filter(Settings settings, BudgetShare share, ExchangeCallbacks owner, Framer framer, str direction)
