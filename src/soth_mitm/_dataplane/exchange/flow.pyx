"""One request and its response: what is copied and framed for the handler, and its hooks in order.

Traffic never waits here. Hooks that come after the decision go through a queue of the flow: the next one is called when the one before has
returned; a full queue paces the flow for a bounded time, then frames are dropped and counted.
"""

from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.time cimport monotonic

from soth_mitm._dataplane.http1.framing cimport BODY_DONE
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.wire.decode cimport decoder_for
from soth_mitm._dataplane.wire.fields cimport stop_fields
from soth_mitm._dataplane.wire.grpc cimport GrpcFramer
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.headers cimport content_encoding_of
from soth_mitm._dataplane.http.hooks cimport HOOK_DONE, HOOK_FAILED, HOOK_PENDING, Hook
from soth_mitm._dataplane.exchange.body_buffer cimport BufferedBody, BodyCopy, new_buffered_body, new_body_copy
from soth_mitm._dataplane.memory.ledger cimport LEDGER_FLOW, note
from soth_mitm._dataplane.http.messages cimport RawRequest, StreamChunk, new_request, new_response
from soth_mitm._dataplane.memory.waiter cimport Waiter
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.upstream.pool cimport OriginPool
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC, STREAM_GRPC_WEB_TEXT, STREAM_NONE, framer_of, stream_of
from soth_mitm._dataplane.wire.target cimport is_idempotent
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of


cdef enum:
    MOST_FRAMES = 64           # that are pushed in one turn of the loop, and what one piece has beyond them
    MOST_STEPS = 64            # in which decoded content is framed in one turn of the loop


@cython.final
cdef class Route:
    """Where requests go. `pool` is None for a refusal, which is answered `status` and `reason`."""

    def __cinit__(self, OriginPool pool, meta, str scheme not None, str authority not None, *, bint observed=True, int status=0,
                  bytes reason=b"", facts=None, on_facts=None, question=None, on_answer=None):
        self.pool = pool
        self.meta = meta
        self.facts = facts
        self.on_facts = on_facts
        self.scheme = scheme
        self.authority = authority
        self.observed = observed
        self.status = status
        self.reason = reason
        self.question = question
        self.on_answer = on_answer

    cdef int met(self, object facts) except -1:
        self.facts = facts
        if self.on_facts is not None and self.observed:
            self.meta = self.on_facts(self.meta, facts)
        return 0


@cython.final
@cython.freelist(16)
cdef class Frames:
    """One direction of a stream."""


cdef Frames new_frames(int stream, Head head, Py_ssize_t budget, str direction):
    cdef Frames frames = Frames.__new__(Frames)
    frames.framer = framer_of(stream, head, budget)
    frames.decoder = decoder_for(content_encoding_of(head), budget, True)
    frames.found = []
    frames.direction = direction
    return frames


@cython.final
cdef class Flow(Waiter):
    """One request and its response."""

    def __cinit__(self, Settings settings, Waiter owner, Route route, Head request):
        self.settings = settings
        self.owner = owner
        self.route = route
        self.request = request
        if route.observed:
            self.hooks = settings.hooks
        settings.counters.last_flow_id += 1
        self.id = settings.counters.last_flow_id
        settings.counters.flows += 1
        settings.counters.active_flows += 1
        if settings.observer is not None:
            self.began = monotonic()
        note(LEDGER_FLOW, 1)

    cdef int take(self, Route route) except -1:
        self.route = route
        self.hooks = self.settings.hooks if route.observed else None
        return 0

    # --- the request

    cdef bint conversational(self) except -1:
        # whatever streams.types says: a body that could be collected is
        return self.upgrade or stream_of(self.request, None) == STREAM_GRPC

    cdef bint is_repeatable(self) noexcept:
        return is_idempotent(self.request.method, self.request.base(), self.request.method_len)

    cdef Py_ssize_t collect(self, const char* data, Py_ssize_t size) except -1:
        cdef View trailers
        cdef Py_ssize_t taken
        if self.collected is None:
            self.collected = new_buffered_body(&self.request_body, self.settings.body_limit)
        taken = self.collected.take(&self.request_body, data, size, &trailers)
        if trailers.len:
            self.request_trailers = view_bytes(trailers)
        self.keep(taken)
        return taken

    cdef int copy_request(self) except -1:
        self.payload = new_body_copy(self.settings.body_limit)
        return 0

    cdef int keep_payload(self, View payload) except -1:
        return self.keep(self.payload.add(payload.ptr, payload.len))

    cdef RawRequest show_request(self):
        cdef bytes body = b""
        cdef bint truncated = False
        cdef BodyCopy source = self.payload if self.collected is None else self.collected.content
        if source is not None:
            body = source.whole()
            truncated = source.truncated or len(body) == self.settings.body_limit < self.request.content_length
        # what comes from now on is nobody's
        self.payload = None
        self.shown = new_request(self.request, self.route.meta, self.id, self.route.scheme, self.route.authority, body,
                                 self.settings.body_limit)
        self.shown.trailer_block = self.request_trailers
        self.shown.body_truncated = truncated
        self.shown.body_complete = self.request_body.state == BODY_DONE and not truncated and not self.at_head
        self.shown.conversation = self.upgrade or self.at_head
        return self.shown

    cdef int ask_afterwards(self) except -1:
        if not self.ask_later:
            return 0
        self.ask_later = False
        self.show_request()
        return self.push(self.hooks.on_request, self.shown, None)

    cdef int ignored(self, object decision) except -1:
        if type(decision) is not self.settings.decision_type:
            self.hooks.misjudged(decision)
        elif decision.is_block:
            self.verdict = VERDICT_IGNORED
            self.tell_observer(FLOW_DECIDED)
            self.settings.counters.blocks_ignored += 1
            self.settings.on_ignored_block(self.shown)
        return 0

    # --- the response

    cdef int begin_response(self, Head head) except -1:
        cdef int stream
        self.response = head
        self.status = head.status
        self.stop_alternatives(head)
        if self.hooks is None:
            return 0
        stream = stream_of(head, self.settings.stream_types)
        if stream != STREAM_NONE or head.status == 101:
            self.streaming = True
            if self.hooks.on_stream_chunk is not None and stream != STREAM_NONE:
                self.down = new_frames(stream, head, self.settings.body_limit, "to_client")
        elif self.hooks.on_response is not None:
            self.copy = new_body_copy(self.settings.body_limit)
        elif self.kept and self.collected is None and self.up is None and self.request_body.state == BODY_DONE and self.settings.enforce:
            # no chunk is to come that would carry it
            self.shown = None
            self.let_go(self.kept)
        return 0

    cdef int stop_alternatives(self, Head head) except -1:
        if self.settings.strip_alt_svc and self.hooks is not None:
            stop_fields(head.base(), head.fields, head.count, b"alt-svc", 7)
        return 0

    cdef int tell_head(self) except -1:
        if self.streaming and self.hooks.on_response is not None:
            self.ask_afterwards()
            if self.ended:
                return 0
            self.told = self.show_response(b"")
            self.push(self.hooks.on_response, self.told, None)
        if (self.kept and self.streaming and self.hooks.on_stream_chunk is None and self.settings.enforce
                and self.request_body.state == BODY_DONE and self.collected is None):
            # a stream may last, and its request is the handler's now
            self.payload = None
            self.shown = None
            self.let_go(self.kept)
        return 0

    cdef object show_response(self, bytes body):
        if self.shown is None:
            self.show_request()
        response = new_response(self.response, self.route.meta, self.id, self.shown, body, self.streaming, self.settings.body_limit)
        response.trailer_block = self.response_trailers
        response.body_truncated = self.copy is not None and self.copy.truncated
        return response

    cdef int see_payload(self, View payload) except -1:
        if self.copy is not None:
            return self.keep(self.copy.add(payload.ptr, payload.len))
        return 0 if self.down is None else self.see_frames(self.down, payload)

    cdef int see_frames(self, Frames frames, View payload) except -1:
        if payload.len == 0 or frames.framer is None:
            return 0
        if frames.decoder is None:
            frames.framer.feed(payload.ptr, payload.len, frames.found)
        else:
            frames.decoded = frames.decoder.feed(view_bytes(payload))
            frames.decoded_at = 0
            return self.frame_decoded(frames)
        return self.count_framing(frames)

    cdef int frame_decoded(self, Frames frames) except -1:
        # little that is encoded may be very much, and each turn of the loop is everybody's
        cdef Py_ssize_t size, step
        cdef int steps = 0
        if frames.decoded is None:
            return 0
        if frames.framer is None:
            frames.decoded = None
            return 0
        size = len(frames.decoded)
        while frames.decoded_at < size:
            if steps == MOST_STEPS or len(frames.found) >= MOST_FRAMES:
                return self.count_framing(frames)
            step = min(size - frames.decoded_at, <Py_ssize_t>FRAMED_AT_ONCE)
            frames.framer.feed(PyBytes_AS_STRING(frames.decoded) + frames.decoded_at, step, frames.found)
            frames.decoded_at += step
            steps += 1
        frames.decoded = None
        if frames.decoder.error is not None:
            # what was decoded before is shown; the traffic goes on without being framed
            self.settings.counters.framing_errors += 1
            frames.framer = None
        return self.count_framing(frames)

    cdef bint has_enough_of(self, Frames frames) except -1:
        return frames is not None and (frames.decoded is not None or len(frames.found) >= MOST_FRAMES)

    cdef int count_framing(self, Frames frames) except -1:
        cdef Py_ssize_t before = frames.held
        frames.held = 0 if frames.framer is None else frames.framer.unfinished()
        if frames.decoded is not None:
            frames.held += len(frames.decoded)
        if frames.held > before:
            return self.keep(frames.held - before)
        return self.let_go(before - frames.held) if frames.held < before else 0

    cdef int begin_upload(self) except -1:
        cdef int stream
        if self.hooks.on_stream_chunk is None or self.upgrade or self.request_body.state == BODY_DONE:
            return 0
        stream = stream_of(self.request, self.settings.stream_types)
        if STREAM_GRPC <= stream <= STREAM_GRPC_WEB_TEXT:
            self.up = new_frames(stream, self.request, self.settings.body_limit, "to_upstream")
        return 0

    cdef int see_collected(self) except -1:
        # what is sent once more was shown before
        cdef Frames up = self.up
        cdef Py_ssize_t step
        cdef int steps = 0
        while True:
            self.frame_decoded(up)
            if up.framer is None:
                self.up_at = max(self.up_at, self.collected.content_sent)
            if up.decoded is None and self.up_at >= self.collected.content_sent:
                return 1
            if steps == MOST_STEPS or self.has_enough_of(up):
                return 0
            step = min(self.collected.content_sent - self.up_at, <Py_ssize_t>FRAMED_AT_ONCE)
            self.see_frames(up, view_of(PyBytes_AS_STRING(self.collected.content.content) + self.up_at, step))
            self.up_at += step
            steps += 1

    cdef int end_upload(self) except -1:
        return 0 if self.up is None else self.end_frames(self.up)

    cdef int end_frames(self, Frames frames) except -1:
        cdef bytes plain
        cdef Framer framer = frames.framer
        if frames.decoded is not None:
            # it was cut in the middle of them
            frames.decoded = None
            self.settings.counters.framing_errors += 1
            self.count_framing(frames)
        if framer is None:
            return 0
        if frames.decoder is not None:
            plain = frames.decoder.finish()
            framer.feed(plain, len(plain), frames.found)
        framer.finish(frames.found)
        # before the hook is called: one that fails may end the flow, and be told so, from within
        frames.framer = None
        self.settings.counters.framing_errors += framer.error_count
        self.count_framing(frames)
        if frames is self.down and type(framer) is GrpcFramer and (<GrpcFramer>framer).trailers:
            # gRPC-Web: they are content to everybody else
            self.response_trailers = (<GrpcFramer>framer).trailers
        return self.push_frames(frames)

    cdef int end_response(self, bint whole) except -1:
        if self.down is not None:
            self.end_frames(self.down)
        if self.told is not None:
            self.told.trailer_block = self.response_trailers
            self.told = None
        if self.copy is not None and whole:
            self.ask_afterwards()
            if self.copy is not None:
                self.push(self.hooks.on_response, self.show_response(self.copy.whole()), None)
        self.copy = None
        return 0

    cdef int end(self) except -1:
        if self.ended:
            return 0
        self.end_upload()
        self.ended = True
        self.is_paced = False
        if self.pace is not None:
            self.pace.clear()
        self.wait_no_more()
        self.settings.counters.active_flows -= 1
        note(LEDGER_FLOW, -1)
        self.tell_observer(FLOW_ENDED)
        self.ask_afterwards()
        if (self.streaming or (self.up is not None and self.up.sequence)) and self.hooks.on_stream_end is not None:
            self.push(self.hooks.on_stream_end, self.route.meta.connection_id, self.id)
        return self.settle()

    cdef int tell_observer(self, FlowEvent event) except -1:
        if self.settings.observer is None:
            return 0
        self.settings.observer.flow(
            <int>event, self.id, self.route.meta, view_bytes(self.request.span(0, self.request.method_len)), self.route.scheme,
            self.route.authority, self.request.origin_target(), self.verdict, self.status,
            self.response is not None
            and (self.response.status == 101 or stream_of(self.response, self.settings.stream_types) != STREAM_NONE),
            self.response_body.payload_total, monotonic() - self.began, self.cause)
        return 0

    cdef int settle(self) except -1:
        if not self.ended or self.busy or self.queue or self.is_settled:
            return 0
        self.is_settled = True
        if self.pace is not None:
            self.pace.clear()
        if self.kept:
            self.let_go(self.kept)
        return self.owner.on_exchange_done(self)

    # --- what is kept for the handler, and the budget

    cdef int keep(self, Py_ssize_t count) except -1:
        self.kept += count
        self.settings.arena.budget.take(count)
        return 0

    cdef int let_go(self, Py_ssize_t count) except -1:
        self.kept -= count
        self.settings.arena.budget.give(count)
        if self.kept == 0:
            self.settings.arena.budget.leave(self)
        return 0

    cdef int forget_collected(self) except -1:
        cdef BufferedBody collected = self.collected
        if collected is None or not collected.is_sent():
            return 0
        if self.up is not None and self.up.framer is not None and self.up_at < collected.content.size and not self.ended:
            # its messages are still to be shown
            return 0
        self.collected = None
        if self.hooks.on_response is not None or self.hooks.on_stream_chunk is not None:
            # the content is what is shown
            return self.let_go(collected.framing_size())
        # nobody will be shown the request again
        self.shown = None
        return self.let_go(collected.size())

    cdef int grow(self, bint deciding) except -1:
        if self.is_waiting or self.has_waited or self.kept == 0 or self.settings.arena.budget.try_reserve(self):
            return 0
        self.is_waiting = True
        if not deciding:
            # a body that is decided on has a deadline of its own
            self.begin_pace()
        return self.owner.on_backpressure(True)

    cdef int on_budget(self) except -1:
        if not self.is_waiting:
            return 0
        self.is_waiting = False
        if not self.is_paced and self.pace is not None:
            self.pace.clear()
        return self.owner.on_backpressure(self.is_paced)

    cdef int wait_no_more(self) except -1:
        if self.is_waiting:
            self.is_waiting = False
            self.settings.arena.budget.leave(self)
        return 0

    cdef int end_copies(self) except -1:
        cdef BodyCopy copy
        for copy in (self.payload, self.copy):
            if copy is not None and copy.limit > copy.size:
                copy.limit = copy.size
                self.settings.counters.shortened_copies += 1
        return 0

    # --- hooks, in order

    cdef int spare_request(self) except -1:
        cdef Py_ssize_t size = len(self.shown.raw_body)
        cdef RawRequest spare
        if size == 0 or self.collected is not None or not self.streaming or self.kept < size or not self.settings.enforce:
            return 0
        spare = new_request(self.request, self.route.meta, self.id, self.route.scheme, self.route.authority, b"", self.settings.body_limit)
        spare.trailer_block = self.request_trailers
        spare.body_truncated = True
        spare.body_complete = False
        self.shown = spare
        return self.let_go(size)

    cdef int push_frames(self, Frames frames) except -1:
        cdef StreamChunk chunk
        cdef list found = frames.found
        if not found:
            return 0
        frames.found = []
        if self.shown is None:
            self.show_request()
        elif self.settings.arena.budget.above_wait_mark():
            self.spare_request()
        for chunk in found:
            if self.ended:
                # the hook failed at the one before, which was the last that it is told
                return 0
            chunk.connection_id = self.route.meta.connection_id
            chunk.connection_meta = self.route.meta
            chunk.flow_id = self.id
            chunk.request = self.shown
            chunk.direction = frames.direction
            chunk.sequence = frames.sequence
            frames.sequence += 1
            self.settings.counters.stream_chunks += 1
            if self.dropping and self.full():
                self.settings.counters.dropped_chunks += 1
            else:
                self.push(self.hooks.on_stream_chunk, chunk, None)
        return 0

    cdef int push(self, Hook hook, object first, object second) except -1:
        # `queue` is not empty while it is drained: what comes meanwhile has its place behind it
        if not self.busy and not self.queue:
            return self.call(hook, first, second)
        if self.queue is None:
            self.queue = deque()
        self.queue.append((hook, first, second))
        if type(first) is StreamChunk:
            self.queued_bytes += len((<StreamChunk>first).payload)
            self.keep(len((<StreamChunk>first).payload))
        if not self.is_paced and not self.dropping and not self.ended and self.full():
            self.is_paced = True
            self.begin_pace()
            self.owner.on_backpressure(True)
        return 0

    cdef int begin_pace(self) except -1:
        if self.pace is None:
            self.pace = Deadline(self)
        return self.pace.set(self.settings.pace, 0)

    cdef int call(self, Hook hook, object first, object second) except -1:
        cdef int outcome = self.hooks.run(hook, first, second, self)
        self.busy = outcome == HOOK_PENDING
        self.called = hook
        if outcome == HOOK_DONE and hook is self.hooks.on_request:
            self.ignored(self.hooks.result)
        if outcome == HOOK_FAILED and self.hooks.cuts(self.hooks.error):
            return self.cut(self.hooks.error)
        return 0

    cdef int cut(self, object error) except -1:
        cdef Frames frames
        for frames in (self.down, self.up):
            if frames is not None:
                frames.framer = None
                frames.found = []
                frames.decoded = None
                self.count_framing(frames)
        self.copy = None
        return self.owner.on_hook_abort(error)

    cdef int full(self) except -1:
        return self.queue is not None and (
            len(self.queue) >= self.settings.queue_limit or self.queued_bytes > self.settings.body_limit
            or (self.queued_bytes > 0 and self.settings.arena.budget.above_wait_mark()))

    cdef int on_deadline(self, int stage) except -1:
        if self.is_waiting:
            self.wait_no_more()
            self.has_waited = True
            self.end_copies()
        if self.is_paced:
            self.is_paced = False
            self.dropping = True
        return self.owner.on_backpressure(False)

    cdef int on_hook_result(self, object result, object error) except -1:
        self.busy = False
        if error is None and self.called is self.hooks.on_request:
            self.ignored(result)
        if error is not None and self.hooks.cuts(error):
            self.cut(error)
        return self.drain()

    cdef int drain(self) except -1:
        while self.queue and not self.busy:
            hook, first, second = self.queue.popleft()
            if type(first) is StreamChunk:
                self.queued_bytes -= len((<StreamChunk>first).payload)
                self.let_go(len((<StreamChunk>first).payload))
            self.call(hook, first, second)
        if not self.full():
            self.dropping = False
            if self.is_paced:
                self.is_paced = False
                if not self.is_waiting:
                    self.pace.clear()
                self.owner.on_backpressure(self.is_waiting)
        return self.settle()
