# Asking filter_stream_chunk about the chunks of one direction, one at a time, and what its answers mean. It knows no format: whoever asks
# holds the chunk's bytes until the verdict, and applies it.


from soth_mitm._dataplane.http.hooks cimport Suspended
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef enum ChunkVerdict:
    CHUNK_PENDING = 0      # the hook has suspended: owner.on_chunk_judged() is to follow, from a loop callback of its own
    CHUNK_PASS             # it leaves as it came
    CHUNK_DROP
    CHUNK_REPLACE          # with ChunkJudge.payloads
    CHUNK_END              # the stream ends behind what was relayed. ChunkJudge.error None: the handler wants it; else why
    CHUNK_ABORT            # the flow ends now with ChunkJudge.error, whatever failure_policy says
    CHUNK_NOT_WANTED       # after give_up(): the hook has returned


cdef class ChunkJudge(Waiter):
    cdef Settings settings
    cdef Waiter owner              # None: no answer is needed any more, and none comes
    cdef Suspended asking          # the call under way, or None
    cdef double began              # when it was made
    cdef bint is_given_up
    cdef tuple payloads            # of the last CHUNK_REPLACE: bytes, or SseEvent
    cdef object error              # of the last CHUNK_END or CHUNK_ABORT, or None

    # A ChunkVerdict. Not while a call is under way
    cdef int ask(self, StreamChunk chunk) except -1
    # The last verdict cannot be applied, and `error` says why: CHUNK_END or CHUNK_ABORT. Counted as a failure of the hook
    cdef int refuse(self, object error) except -1
    # The chunk cannot be shown as the configuration wants it: it is counted as one that ended its stream; CHUNK_END
    cdef int end_unasked(self, object error) except -1
    # No answer is wanted any more: the hook is cancelled, and CHUNK_NOT_WANTED follows if a call is under way
    cdef int give_up(self) except -1
    cdef bint is_pending(self) noexcept

    cdef int judge(self, object answer) except -1
    cdef int judge_failure(self, object error) except -1
    cdef int fail_closed(self, object error) except -1


cdef ChunkJudge new_chunk_judge(Settings settings, Waiter owner)
