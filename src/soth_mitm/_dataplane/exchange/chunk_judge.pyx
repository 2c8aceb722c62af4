"""What a handler's answer to filter_stream_chunk means, and the wait for it.

Nothing passes by mistake: an answer that is no decision, a decision whose arguments were refused and one that cannot be applied to its
chunk end the stream, whatever `handler.failure_policy` says. Other failures go by it.
"""

cimport cython
from cpython.time cimport monotonic

from soth_mitm._dataplane.http.counters cimport count_filter_time
from soth_mitm._dataplane.http.hooks cimport HOOK_FAILED, HOOK_PENDING, Hooks
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.waiter cimport Waiter

VERDICTS = {"pass": CHUNK_PASS, "drop": CHUNK_DROP, "replace": CHUNK_REPLACE, "end": CHUNK_END}


@cython.final
cdef class ChunkJudge(Waiter):
    """Asks about the chunks of one direction of a stream."""

    cdef int ask(self, StreamChunk chunk) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef int outcome = hooks.run(hooks.filter_stream_chunk, chunk, None, self)
        if outcome == HOOK_PENDING:
            self.asking = hooks.pending
            self.began = monotonic()
            return CHUNK_PENDING
        count_filter_time(self.settings.counters, hooks.took)
        return self.judge_failure(hooks.error) if outcome == HOOK_FAILED else self.judge(hooks.result)

    cdef int on_hook_result(self, object result, object error) except -1:
        cdef Waiter owner = self.owner
        self.asking = None
        count_filter_time(self.settings.counters, monotonic() - self.began)
        if owner is None:
            return 0
        if self.is_given_up:
            return owner.on_chunk_judged(CHUNK_NOT_WANTED)
        return owner.on_chunk_judged(self.judge(result) if error is None else self.judge_failure(error))

    cdef int judge(self, object answer) except -1:
        cdef int verdict
        self.error = None
        if answer is self.settings.chunk_pass:
            self.settings.counters.chunks_passed += 1
            return CHUNK_PASS
        # by its exact type: a mock of a decision has no answer to give
        if type(answer) is not self.settings.chunk_decision_type:
            self.settings.hooks.mistaken(
                self.settings.hooks.filter_stream_chunk, "a ChunkDecision (ChunkDecision.PASS, .DROP, .replace(...), .END)", answer)
            return self.fail_closed(self.settings.hooks.error)
        verdict = VERDICTS[answer.kind]
        if verdict == CHUNK_REPLACE:
            self.payloads = answer.payloads
            self.settings.counters.chunks_replaced += 1
        elif verdict == CHUNK_DROP:
            self.settings.counters.chunks_dropped += 1
        elif verdict == CHUNK_END:
            self.settings.counters.chunks_ended += 1
        else:
            # a copy of PASS
            self.settings.counters.chunks_passed += 1
        return verdict

    cdef int judge_failure(self, object error) except -1:
        cdef Hooks hooks = self.settings.hooks
        if hooks.block_on_failure or hooks.cuts(error) or self.settings.meant_to_block(error):
            return self.fail_closed(error)
        self.error = None
        self.settings.counters.chunks_passed += 1
        return CHUNK_PASS

    cdef int refuse(self, object error) except -1:
        self.settings.counters.chunks_replaced -= 1
        self.settings.hooks.failed(self.settings.hooks.filter_stream_chunk, error)
        return self.fail_closed(error)

    cdef int end_unasked(self, object error) except -1:
        self.error = error
        self.settings.counters.chunks_ended += 1
        return CHUNK_END

    cdef int fail_closed(self, object error) except -1:
        self.end_unasked(error)
        return CHUNK_ABORT if self.settings.hooks.cuts(error) else CHUNK_END

    cdef int give_up(self) except -1:
        if self.asking is not None and not self.is_given_up:
            self.is_given_up = True
            return self.asking.give_up()
        return 0

    cdef bint is_pending(self) noexcept:
        return self.asking is not None


cdef ChunkJudge new_chunk_judge(Settings settings, Waiter owner):
    cdef ChunkJudge judge = ChunkJudge.__new__(ChunkJudge)
    judge.settings = settings
    judge.owner = owner
    return judge
