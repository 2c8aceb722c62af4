"""One frame at a time through the handler, before it is relayed.

The bytes of a frame are held until it is decided on: then they leave as they came, or not at all, or what was decided leaves in their
place. What belongs to no frame (comments of SSE, blank lines, the trailers of gRPC-Web) leaves unasked, and never before what came before
it. What cannot be shown as its reader reads it does not leave: it cuts the message.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from soth_mitm._dataplane.exchange.budget_share cimport LEAST_HELD, BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.chunk_judge cimport (
    CHUNK_ABORT, CHUNK_DROP, CHUNK_NOT_WANTED, CHUNK_PASS, CHUNK_PENDING, CHUNK_REPLACE, new_chunk_judge,
)
from soth_mitm._dataplane.http.messages cimport StreamChunk, chunks_in_place, copy_of_chunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stages cimport STAGE_ABORTS, STAGE_CUTS, STAGE_ENDS, STAGE_GOES_ON, ContentStage
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of
from soth_mitm._dataplane.wire.framer cimport Framer, append_bytes


cdef enum:
    MOST_UNITS = 64            # that are decided on in one turn of the loop
    FRAMING_ROOM = 65536       # bytes of a unit beside the payload of its frame: names of fields, comments, a prefix


@cython.final
cdef class ChunkFilter(ContentStage):
    """Asks the handler about each frame of one direction."""

    # ---- content in

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t begin, step, at = 0, most
        # of `data`: what passes as it came, and is given on at once
        cdef Py_ssize_t run_begin = 0, run_end = 0
        cdef bint is_here
        cdef View unit
        cdef int verdict
        while at < length and not self.is_stopped():
            begin = at
            # a frame is too long from one byte on, in whatever pieces it comes
            most = self.most()
            step = length - begin if self.long_frame else min(length - begin, most + 1 - PyByteArray_GET_SIZE(self.unit))
            at += self.framer.feed(data + begin, step, self.found)
            if self.framer.failed or self.framer.error_count:
                self.damage()
                break
            if self.long_frame:
                self.take_rest(data + begin, at - begin)
                run_begin = run_end = at
                continue
            is_here = PyByteArray_GET_SIZE(self.unit) == 0
            if not is_here or not self.framer.at_border:
                append_bytes(self.unit, data + begin, at - begin)
                is_here = False
                if not self.framer.at_border and not self.found and PyByteArray_GET_SIZE(self.unit) <= most:
                    continue
            unit = view_of(data + begin, at - begin) if is_here else self.unit_view()
            verdict = self.ask(self.framer.at_border)
            if verdict == CHUNK_PASS and is_here and not self.is_observed and not self.framer.is_odd(unit.ptr, unit.len):
                if run_end != begin:
                    self.give(data + run_begin, run_end - run_begin)
                    run_begin = begin
                run_end = at
                continue
            self.give(data + run_begin, run_end - run_begin)
            run_begin = run_end = at
            self.apply(verdict, unit, self.framer.at_border)
            PyByteArray_Resize(self.unit, 0)
        self.give(data + run_begin, run_end - run_begin)
        return at

    cdef int end(self) except -1:
        cdef bint is_rest = self.long_frame != LONG_NOT
        self.is_at_end = True
        self.framer.finish(self.found)
        if self.framer.failed or self.framer.error_count:
            return self.damage()
        if is_rest:
            self.found.clear()
        elif PyByteArray_GET_SIZE(self.unit) > 0:
            self.apply(self.ask(True), self.unit_view(), True)
            PyByteArray_Resize(self.unit, 0)
        return 0 if self.is_waiting() or self.ending else self.next.end()

    cdef View unit_view(self) noexcept:
        return view_of(PyByteArray_AS_STRING(self.unit), PyByteArray_GET_SIZE(self.unit))

    cdef int take_rest(self, const char* data, Py_ssize_t length) except -1:
        if self.long_frame == LONG_PASSES:
            self.give(data, length)
        if self.framer.at_border:
            # it was decided on before
            self.long_frame = LONG_NOT
            self.found.clear()
        return 0

    # ---- decisions

    cdef int ask(self, bint is_whole) except -1:
        cdef StreamChunk chunk
        cdef bint is_asked
        self.left -= 1
        if not self.found:
            if is_whole:
                # it belongs to no frame
                self.asked = None
                return CHUNK_PASS
            self.found.append(self.framer.peek())
            # what comes of it from now on is decided on already
            self.framer.hold_no_more(1)
        self.asked = chunk = self.found.pop()
        is_asked = self.owner.on_chunk_found(chunk)
        chunk.direction = self.direction
        chunk.sequence = self.sequence
        self.sequence += 1
        if not is_asked:
            return CHUNK_PASS
        if chunk.truncated and (self.settings.refuse_incomplete or self.settings.reject_overflow):
            return self.judge.end_unasked(ValueError(
                f"a frame is longer than {self.settings.body_limit} bytes (body.max_size_bytes, body.incomplete, body.overflow)"))
        return self.judge.ask(chunk)

    cdef int on_chunk_judged(self, int verdict) except -1:
        cdef bytes unit = self.asked_unit
        cdef ExchangeCallbacks owner = self.owner
        self.asked_unit = None
        if verdict != CHUNK_NOT_WANTED and not self.is_closed:
            self.apply(verdict, view_of(PyBytes_AS_STRING(unit), PyBytes_GET_SIZE(unit)), self.asked_whole)
            if self.is_at_end and not self.ending:
                self.next.end()
        return owner.on_stage_ready(self)

    cdef int apply(self, int verdict, View unit, bint is_whole) except -1:
        cdef StreamChunk chunk = self.asked
        if verdict == CHUNK_PENDING:
            self.asked_unit = view_bytes(unit)
            self.asked_whole = is_whole
            return self.owner.on_stage_waits(self)
        if self.is_closed:
            return 0
        if verdict == CHUNK_PASS:
            self.leave(unit)
            if chunk is not None:
                self.show(chunk)
            self.long_frame = LONG_NOT if is_whole else LONG_PASSES
            return 0
        if verdict == CHUNK_DROP:
            self.long_frame = LONG_NOT if is_whole else LONG_DROPS
            return 0
        if verdict == CHUNK_REPLACE:
            return self.replace(unit)
        return self.stop(verdict)

    cdef int replace(self, View unit) except -1:
        cdef StreamChunk other
        cdef list left
        cdef bytes out
        try:
            out = self.framer.rewritten(view_bytes(unit), self.judge.payloads)
            left = chunks_in_place(self.asked, self.judge.payloads)
        except ValueError as error:
            return self.stop(self.judge.refuse(error))
        self.give(PyBytes_AS_STRING(out), PyBytes_GET_SIZE(out))
        for other in left:
            self.show(other)
        return 0

    cdef int stop(self, int verdict) except -1:
        self.ending = STAGE_ABORTS if verdict == CHUNK_ABORT else STAGE_ENDS
        self.error = self.judge.error
        return 0

    cdef int damage(self) except -1:
        self.settings.counters.framing_errors += 1
        self.ending = STAGE_CUTS
        self.error = ValueError("a stream holds what filter_stream_chunk cannot be shown: it breaks its format, or its coding is not known")
        return 0

    # ---- content out

    cdef int leave(self, View unit) except -1:
        cdef bytes clear
        if not self.framer.is_odd(unit.ptr, unit.len):
            return self.give(unit.ptr, unit.len)
        clear = self.framer.passed(view_bytes(unit))
        return self.give(PyBytes_AS_STRING(clear), PyBytes_GET_SIZE(clear))

    cdef int give(self, const char* data, Py_ssize_t length) except -1:
        if length > 0 and not self.is_closed:
            self.next.feed(data, length)
        return 0

    cdef int show(self, StreamChunk chunk) except -1:
        if not self.is_observed or self.is_closed:
            return 0
        # the handler may have kept the other one
        return self.owner.on_chunk_left(self, chunk if chunk.sequence == self.shown else copy_of_chunk(chunk))

    # ---- the stage

    cdef Py_ssize_t held(self) noexcept:
        return (PyByteArray_GET_SIZE(self.unit) + self.framer.unfinished()
                + (0 if self.asked_unit is None else PyBytes_GET_SIZE(self.asked_unit)))

    cdef bint is_waiting(self) noexcept:
        return self.judge.is_pending()

    cdef bint is_stopped(self) noexcept:
        return self.left <= 0 or self.ending != STAGE_GOES_ON or self.is_closed or self.judge.is_pending()

    cdef Py_ssize_t most(self) noexcept:
        cdef Py_ssize_t most = self.settings.body_limit + FRAMING_ROOM
        return min(most, max(PyByteArray_GET_SIZE(self.unit), <Py_ssize_t>LEAST_HELD)) if self.share.must_cut() else most

    cdef int begin_turn(self) except -1:
        self.left = MOST_UNITS
        return 0

    cdef int close(self) except -1:
        self.is_closed = True
        return self.judge.give_up()


cdef ChunkFilter new_chunk_filter(Settings settings, BudgetShare share, ExchangeCallbacks owner, Framer framer, str direction):
    cdef ChunkFilter made = ChunkFilter.__new__(ChunkFilter)
    framer.single = True
    made.settings = settings
    made.share = share
    made.owner = owner
    made.framer = framer
    made.judge = new_chunk_judge(settings, made)
    made.found = []
    made.unit = bytearray()
    made.direction = direction
    made.is_observed = settings.hooks.on_stream_chunk is not None
    made.left = MOST_UNITS
    return made
