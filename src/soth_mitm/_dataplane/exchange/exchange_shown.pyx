"""What the handler is shown of an exchange: requests, responses and frames, in order; and what is kept for it, and counted."""

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.body_buffer cimport BodyCopy, BufferedBody
from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare, new_budget_share
from soth_mitm._dataplane.exchange.exchange_recorded cimport ExchangeRecorded
from soth_mitm._dataplane.exchange.exchange_state cimport EXCHANGE_DECIDED, VERDICT_IGNORED, VERDICT_OTHER_IGNORED
from soth_mitm._dataplane.exchange.hook_queue cimport new_hook_queue
from soth_mitm._dataplane.exchange.message_tap cimport MessageTap
from soth_mitm._dataplane.exchange.own_body cimport close_untaken, new_own_stream, untaken_of
from soth_mitm._dataplane.exchange.states cimport RESPONSE_RELAY
from soth_mitm._dataplane.exchange.taps cimport FrameTap
from soth_mitm._dataplane.http.hooks cimport Hook
from soth_mitm._dataplane.http.messages cimport (
    BIT_WEBSOCKET_BINARY, BIT_WEBSOCKET_TEXT, RawRequest, RawResponse, StreamChunk, new_request, new_response,
)


# not final: the next part derives from it
cdef class ExchangeShown(ExchangeRecorded):
    """What the handler is shown."""

    # ---- the request

    cdef RawRequest show_request(self):
        cdef bytes body = b""
        cdef bint truncated = False
        cdef BodyCopy source = self.request_copy if self.buffered is None else self.buffered.content
        if source is not None:
            body = source.whole()
            truncated = source.truncated or len(body) == self.settings.body_limit < self.request.content_length
        # what comes from now on is not shown
        self.request_copy = None
        self.request_view = new_request(self.request, self.route.meta, self.id, self.route.scheme, self.route.authority, body,
                                        self.settings.body_limit)
        self.request_view.began_at = self.began
        self.request_view.trailer_block = self.request_trailers
        self.request_view.body_truncated = truncated
        self.request_view.body_complete = (
            self.client.is_complete() and not truncated and not self.is_decided_at_head)
        self.request_view.conversation = self.keep_upgrade or self.is_decided_at_head
        self.request_view.has_body = self.has_body
        self.request_view.keeps_upgrade = self.keep_upgrade
        self.request_view.head_limit = self.settings.head_limit
        self.request_view.most_fields = self.settings.most_fields
        return self.request_view

    cdef int ask_afterwards(self) except -1:
        if not self.asks_later:
            return 0
        self.asks_later = False
        self.show_request()
        return self.push(self.hooks.on_request, self.request_view, None)

    cdef int on_late_decision(self, object decision) except -1:
        if type(decision) is not self.settings.decision_type:
            self.hooks.misjudged(decision)
        elif decision is not self.settings.allow:
            if decision.kind == "block":
                self.verdict = VERDICT_IGNORED
                self.settings.counters.blocks_ignored += 1
            else:
                self.verdict = VERDICT_OTHER_IGNORED
                self.settings.counters.decisions_ignored += 1
            self.tell_observer(EXCHANGE_DECIDED)
            self.settings.on_ignored_decision(self.request_view, decision)
            self.close_ignored(decision)
        return 0

    cdef int close_ignored(self, object decision) except -1:
        cdef tuple taken = untaken_of(decision)
        if taken is None:
            return 0
        # or the iterable would stay until the next hook returns
        self.settings.hooks.result = None
        self.pending_calls += 1
        return new_own_stream(self.settings, self, taken).close()

    cdef int on_late_result(self, object result) except -1:
        return close_untaken(self.settings, result)

    # ---- the response

    cdef RawResponse show_response(self, bytes body):
        cdef RawResponse response
        if self.request_view is None:
            self.show_request()
        response = new_response(self.response if self.relayed is None else self.relayed, self.way.meta, self.id, self.request_view, body,
                                self.is_streaming, self.settings.body_limit)
        response.trailer_block = self.response_trailers
        response.body_truncated = self.response_copy is not None and self.response_copy.truncated
        response.body_complete = not response.body_truncated and not self.is_streaming and self.relayed is not None
        response.head_limit = self.settings.head_limit
        response.most_fields = self.settings.most_fields
        return response

    cdef int show_response_head(self) except -1:
        if self.hooks.on_response is not None:
            self.ask_afterwards()
            if self.has_ended or self.is_over():
                return 0
            self.response_view = self.show_response(b"")
            self.push(self.hooks.on_response, self.response_view, None)
        if (self.held() and self.hooks.on_stream_chunk is None and self.down_stages is None and self.settings.enforce
                and not self.is_over() and self.client.is_complete() and self.buffered is None):
            # a stream may last, and its request is the handler's now
            self.request_copy = None
            self.request_view = None
            self.refund(self.held())
        return 0

    cdef int end_response(self, bint is_whole) except -1:
        if self.down is not None:
            self.end_frames(self.down)
            if self.down.trailers is not None:
                # gRPC-Web: they are content to everything else
                self.response_trailers = self.down.trailers
        elif self.down_stages is not None and self.down_stages.trailers() is not None:
            self.response_trailers = self.down_stages.trailers()
        if self.response_view is not None:
            self.response_view.trailer_block = self.response_trailers
            self.response_view = None
        if self.response_copy is not None and is_whole:
            self.ask_afterwards()
            if self.response_copy is not None:
                self.push(self.hooks.on_response, self.show_response(self.response_copy.whole()), None)
        self.response_copy = None
        return 0

    # ---- frames and messages, either way

    cdef bint shows_messages(self) noexcept:
        return self.hooks is not None and (self.hooks.on_stream_chunk is not None or self.filters_messages())

    cdef bint filters_messages(self) noexcept:
        return (self.settings.enforce and not self.is_unfiltered
                and self.hooks.filtered & (BIT_WEBSOCKET_TEXT | BIT_WEBSOCKET_BINARY) != 0)

    cdef int end_upload(self) except -1:
        return 0 if self.up is None else self.end_frames(self.up)

    cdef int end_frames(self, FrameTap tap) except -1:
        tap.finish()
        return self.push_frames(tap)

    cdef int push_frames(self, FrameTap tap) except -1:
        cdef list found = tap.found
        if not found:
            return 0
        tap.found = []
        return self.push_chunks(found, tap.direction, &tap.sequence)

    cdef int on_messages(self, object tap) except -1:
        cdef MessageTap messages = <MessageTap>tap
        found, messages.found = messages.found, []
        self.push_chunks(found, messages.direction, &messages.sequence)
        return 0 if self.has_ended else self.reserve(False)

    cdef int describe_chunk(self, object chunk, str direction, int64_t sequence) except -1:
        cdef StreamChunk shown = <StreamChunk>chunk
        if self.request_view is None:
            self.show_request()
        shown.connection_id = self.route.meta.connection_id
        shown.connection_meta = self.route.meta if self.way is None else self.way.meta
        shown.flow_id = self.id
        shown.request = self.request_view
        shown._note = self.response_note
        shown.direction = direction
        shown.sequence = sequence
        return 0

    cdef int push_chunks(self, list found, str direction, int64_t* sequence) except -1:
        cdef StreamChunk chunk
        if self.request_view is not None and self.settings.arena.budget.above_wait_mark():
            self.spare_request()
        for chunk in found:
            if self.has_ended or (self.tunnel is not None and self.tunnel.has_failed):
                # the hook failed at the one before, which was the last that it is told
                return 0
            self.describe_chunk(chunk, direction, sequence[0])
            sequence[0] += 1
            if self.recording is not None:
                self.record_frame(<StreamChunk>chunk, direction)
                if self.hooks.on_stream_chunk is None:
                    continue
            self.settings.counters.stream_chunks += 1
            if self.queue is not None and self.queue.is_dropping and self.queue.is_full():
                self.settings.counters.dropped_chunks += 1
            else:
                self.push(self.hooks.on_stream_chunk, chunk, None)
        return 0

    cdef int spare_request(self) except -1:
        cdef Py_ssize_t size = len(self.request_view.raw_body)
        cdef RawRequest spare
        if size == 0 or self.buffered is not None or not self.is_streaming or self.held() < size or not self.settings.enforce:
            return 0
        spare = new_request(self.request, self.route.meta, self.id, self.route.scheme, self.route.authority, b"",
                            self.settings.body_limit)
        spare.began_at = self.began
        spare.trailer_block = self.request_trailers
        spare.body_truncated = True
        spare.body_complete = False
        self.request_view = spare
        return self.refund(size)

    cdef int push(self, Hook hook, object first, object second) except -1:
        if self.queue is None:
            self.queue = new_hook_queue(self.settings, self.hooks, self, self.own_share())
        return self.queue.push(hook, first, second)

    # ---- what is kept for the handler, and the budget

    cdef BudgetShare own_share(self):
        if self.share is None:
            self.share = new_budget_share(self.settings, self)
        return self.share

    cdef int charge(self, Py_ssize_t count) except -1:
        return self.own_share().charge(count)

    cdef int refund(self, Py_ssize_t count) except -1:
        return self.share.refund(count)

    cdef Py_ssize_t held(self) noexcept:
        return 0 if self.share is None else self.share.held

    cdef int reserve(self, bint is_deciding) except -1:
        return 0 if self.share is None else self.share.reserve(is_deciding)

    cdef int forget_buffered(self) except -1:
        cdef BufferedBody buffered = self.buffered
        if buffered is None or not buffered.is_sent():
            return 0
        if self.up is not None and self.up.framer is not None and self.up_at < buffered.content.size and not self.has_ended:
            # its messages are still to be shown
            return 0
        return self.drop_buffered()

    cdef int drop_buffered(self) except -1:
        cdef BufferedBody buffered = self.buffered
        if buffered is None:
            return 0
        self.buffered = None
        if self.hooks.on_response is not None or self.hooks.on_stream_chunk is not None or self.hooks.filtered or (
                self.hooks.on_response_head is not None and self.response_state < RESPONSE_RELAY):
            # the content is what is shown
            return self.refund(buffered.framing_size())
        # the request is not shown again
        self.request_view = None
        return self.refund(buffered.size())

    cdef int drop_held(self) except -1:
        cdef BufferedBody body = self.held_body
        if body is None:
            return 0
        self.held_body = None
        self.settings.counters.held_bytes -= body.size()
        # the content may be what is shown
        return self.refund(body.framing_size() if self.response_copy is body.content else body.size())

    cdef int leave_decision(self) except -1:
        if not self.is_held:
            return 0
        self.is_held = False
        self.settings.counters.held_responses -= 1
        if self.asking is not None:
            # its answer is of no use to anything else
            self.asking.give_up()
            self.asking = None
        return 0

    cdef int on_copies_late(self) except -1:
        cdef BodyCopy copy
        for copy in (self.request_copy, self.response_copy):
            if copy is not None and copy.limit > copy.size:
                copy.limit = copy.size
                self.settings.counters.shortened_copies += 1
        return 0
