"""Content of an exchange that passes through stages, either way: frames of a stream that the handler decides on before they are relayed.

A direction that waits for the handler pauses its source (PAUSE_DECISION); the other one goes on. What ends a stream ends the exchange: the
client has what was relayed, and the upstream is cancelled.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from soth_mitm._dataplane.exchange.chunk_filter cimport LONG_PASSES, ChunkFilter, new_chunk_filter
from soth_mitm._dataplane.exchange.exchange_state cimport MOST_PIECES, MOVED_ALL, MOVED_MISDIRECTED, MOVED_MORE, MOVED_NONSENSE, MOVED_SOME
from soth_mitm._dataplane.exchange.exchange_responses cimport ExchangeResponses
from soth_mitm._dataplane.exchange.staged_content cimport StagedContent, TextStage, new_staged_content
from soth_mitm._dataplane.exchange.states cimport INPUT_COMPLETE, REQUEST_SENT, RESPONSE_DONE
from soth_mitm._dataplane.exchange.taps cimport FRAMED_AT_ONCE
from soth_mitm._dataplane.http.counters cimport END_BLOCKED, END_CUT_BY_UPSTREAM
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.stages cimport STAGE_ABORTS, STAGE_CUTS, ContentStage
from soth_mitm._dataplane.http.stream cimport Piece, Stream
from soth_mitm._dataplane.memory.buffer cimport BLOCK_SIZE
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_DECISION, PAUSE_PEER_SLOW
from soth_mitm._dataplane.wire.decode cimport refuses_identity
from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.wire.grpc cimport GrpcFramer, grpc_trailers, grpc_trailers_frame
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.headers cimport headers_of_head
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC, STREAM_GRPC_WEB, STREAM_GRPC_WEB_TEXT, frame_bit_of, framer_of, stream_of

ENDED = b"filter_stream_chunk of the policy handler ended the stream"
FAILED = b"the policy handler failed and handler.failure_policy is block"


@cython.final
cdef class SearchStage(ContentStage):
    """Sends what it is fed, and searches it for credentials; what `search` holds back is sent by whoever ends the request."""

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        self.search.send(self.sink, data, length)
        return length

    cdef Py_ssize_t held(self) noexcept:
        return self.search.held()


# not final: the next part derives from it
cdef class ExchangeStages(ExchangeResponses):
    """What passes through stages."""

    # ---- which content does

    cdef bint is_filtered(self, int stream) noexcept:
        return (self.hooks is not None and self.hooks.filtered & frame_bit_of(stream) and self.settings.enforce
                and not self.is_unfiltered)

    cdef bint stage_response(self, int stream) except -1:
        cdef StagedContent staged = self.filtering(stream, self.response, "to_client")
        if staged.error is not None:
            self.fail_upstream(502, f"the response cannot be filtered: {staged.error}".encode())
        elif self.response.status == 206:
            self.fail_upstream(502, b"the response cannot be filtered: it is a part of one (206)")
        elif staged.decoder is not None and refuses_identity(", ".join(headers_of_head(self.request).get_all("accept-encoding"))):
            self.fail_upstream(502, b"the response cannot be filtered: it is encoded, and the client takes no other coding (identity;q=0)")
        else:
            if self.recording is not None:
                staged.filter.is_observed = staged.filter.is_observed or self.records_frames(stream)
                staged.add(self.record_stage())
            staged.send_to(self.client)
            self.down_stages = staged
            return True
        # the client has another response
        self.is_streaming = False
        return False

    cdef bint stage_request(self) except -1:
        cdef SearchStage search
        cdef StagedContent staged = self.filtering(stream_of(self.sent, self.settings.stream_types), self.sent, "to_upstream")
        if staged.error is not None:
            self.refuse(415, f"the request cannot be filtered: {staged.error}".encode())
            return False
        if self.upload_search is not None:
            search = SearchStage()
            search.search = self.upload_search
            search.sink = self.upstream
            staged.add(search)
        staged.send_to(self.upstream)
        self.up_stages = staged
        return True

    cdef StagedContent filtering(self, int stream, Head head, str direction):
        cdef StagedContent staged = new_staged_content(self.settings, self.own_share(), head)
        cdef Framer framer = framer_of(stream, head, self.settings.body_limit)
        if stream == STREAM_GRPC_WEB_TEXT:
            staged.text = <GrpcFramer>framer
            framer = framer_of(STREAM_GRPC_WEB, head, self.settings.body_limit)
        staged.filter = new_chunk_filter(self.settings, self.own_share(), self, framer, direction)
        staged.add(staged.filter)
        if staged.text is not None:
            staged.add(TextStage())
        return staged

    # ---- moving it

    cdef int relay_staged(self, StagedContent staged, Stream source, Stream sink) except -1:
        cdef Py_ssize_t most = BLOCK_SIZE if staged.decoder is None else FRAMED_AT_ONCE
        cdef Piece piece
        cdef bytes content
        cdef int pieces = 0, moved
        source.forward_wire_to(None)
        staged.begin_turn()
        staged.go_on()
        while True:
            moved = self.after_stages(staged, source, sink)
            if moved != MOVED_ON:
                return moved
            if pieces == MOST_PIECES:
                return MOVED_MORE
            if source.next_piece(&piece, most) <= 0:
                break
            pieces += 1
            if piece.trailers.len:
                if source is self.client:
                    self.request_trailers = view_bytes(piece.trailers)
                else:
                    self.response_trailers = view_bytes(piece.trailers)
            if piece.content.len:
                # of our own: a hook is called while it is read, and may end the exchange
                content = view_bytes(piece.content)
                if source is not self.client:
                    self.response_total += piece.content.len
                source.take_content()
                if self.recording is not None and source is self.client:
                    self.recording.note_content(False, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))
                staged.feed(view_of(PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content)))
        source.take_content()
        if source.is_malformed():
            return MOVED_NONSENSE
        if not source.is_complete():
            self.reserve(False)
            return MOVED_SOME
        staged.finish()
        moved = self.after_stages(staged, source, sink)
        return MOVED_SOME if moved == MOVED_ON else moved

    cdef int relay_staged_request(self) except -1:
        cdef StagedContent staged = self.up_stages
        cdef View piece, trailers
        cdef bytes content
        cdef int moved
        if self.buffered is not None:
            staged.begin_turn()
            staged.go_on()
            while not self.buffered.is_sent():
                moved = self.after_stages(staged, self.client, self.upstream)
                if moved != MOVED_ON:
                    return moved
                self.buffered.next_content(FRAMED_AT_ONCE, &piece, &trailers)
                content = view_bytes(piece)
                staged.feed(view_of(PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content)))
            self.forget_buffered()
        moved = self.relay_staged(staged, self.client, self.upstream)
        if self.is_over() or staged.is_busy():
            return moved
        # behind all that lies here: its end may be next
        self.client.resume(PAUSE_DECISION)
        if moved == MOVED_SOME and not self.is_over() and not self.client.has_content():
            self.abort_if_cut()
        return moved

    cdef int after_stages(self, StagedContent staged, Stream source, Stream sink) except -2:
        cdef bint is_request = staged is self.up_stages
        cdef ContentStage stage
        if self.is_over() or self.has_ended:
            return MOVED_SOME
        if is_request and self.upload_search is not None and self.upload_search.has_found():
            return MOVED_MISDIRECTED
        stage = staged.stopped()
        if stage is not None:
            self.end_staged(stage, is_request)
            return MOVED_SOME
        if staged.is_waiting():
            if staged.lost is None:
                source.pause(PAUSE_DECISION)
            return MOVED_SOME
        if staged.is_busy():
            if staged.has_room():
                return MOVED_MORE
            # the rest is unpacked when the other side takes it
            if staged.lost is None:
                source.pause(PAUSE_PEER_SLOW)
            sink.await_room()
            return MOVED_SOME
        if staged.error is not None:
            self.settings.counters.framing_errors += 1
            self.cut_staged(ValueError(f"the coding of a stream cannot be removed: {staged.error}"), is_request)
            return MOVED_SOME
        if staged.lost is not None:
            self.settings.counters.upstream_errors += 1
            self.note_fault(END_CUT_BY_UPSTREAM)
            self.truncate(staged.lost)
            return MOVED_SOME
        if staged.has_left():
            return MOVED_ALL
        if sink.room() <= 0 or sink.is_write_paused():
            source.pause(PAUSE_PEER_SLOW)
            sink.await_room()
            return MOVED_SOME
        return MOVED_ON

    # ---- what a filter tells

    cdef bint on_chunk_found(self, StreamChunk chunk) except -1:
        if self.request_view is None:
            self.show_request()
        elif self.settings.arena.budget.above_wait_mark():
            self.spare_request()
        chunk.connection_id = self.route.meta.connection_id
        chunk.connection_meta = self.route.meta if self.way is None else self.way.meta
        chunk.flow_id = self.id
        chunk.request = self.request_view
        chunk._note = self.response_note
        return not self.is_unfiltered

    cdef int on_chunk_left(self, object stage, StreamChunk chunk) except -1:
        cdef ChunkFilter made = <ChunkFilter>stage
        # traffic first, then the handler
        if self.up_stages is None or made is not self.up_stages.filter:
            self.client.flush()
        elif self.upstream is not None:
            self.upstream.flush()
        return self.push_chunks([chunk], made.direction, &made.shown)

    cdef int on_stage_waits(self, object stage) except -1:
        self.pending_calls += 1
        return 0

    cdef int on_stage_ready(self, object stage) except -1:
        self.pending_calls -= 1
        return self.settle() if self.is_over() else self.advance()

    # ---- what ends it

    cdef int end_staged(self, ContentStage stage, bint is_request) except -1:
        if stage.ending == STAGE_ABORTS:
            return self.on_hook_abort(stage.error)
        if stage.ending == STAGE_CUTS:
            return self.cut_staged(stage.error, is_request)
        return self.end_upload_of_client(stage.error) if is_request else self.end_download(stage.error)

    cdef int cut_staged(self, object error, bint is_request) except -1:
        if not is_request:
            self.settings.counters.upstream_errors += 1
            self.note_fault(END_CUT_BY_UPSTREAM)
            return self.truncate(error)
        if self.has_response():
            return self.truncate(error)
        return self.refuse(400, str(error).encode())

    cdef int end_upload_of_client(self, object error) except -1:
        if self.has_response():
            return self.end_download(error)
        self.note_fault(END_BLOCKED)
        return self.explain(403, ENDED) if error is None else self.explain(502, FAILED)

    cdef int end_download(self, object error) except -1:
        cdef StagedContent staged = self.down_stages
        cdef int stream = stream_of(self.response, self.settings.stream_types)
        cdef bytes trailers = None, frame
        if self.response_state == RESPONSE_DONE:
            return self.refuse_rest()
        if staged is None or staged.filter.long_frame == LONG_PASSES:
            # where a frame ends is not known, or it is not here
            return self.truncate(error or ConnectionAbortedError(ENDED.decode()))
        self.note_cut(error or ENDED)
        if STREAM_GRPC <= stream <= STREAM_GRPC_WEB_TEXT:
            trailers = grpc_trailers(403, ENDED) if error is None else grpc_trailers(502, FAILED)
            if stream != STREAM_GRPC:
                frame = grpc_trailers_frame(trailers)
                staged.filter.next.feed(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
                trailers = None
        staged.close()
        self.response_trailers = trailers
        self.client.send_end(trailers)
        self.move_response(INPUT_COMPLETE)
        self.clear_upstream_deadline()
        self.client.flush()
        self.drop_upstream()
        self.runs_again = True
        if self.request_state == REQUEST_SENT:
            return self.end_response(True)
        if self.client.is_complete():
            self.stop_upload()
            return self.end_response(True)
        self.client.refuse_rest()
        return self.terminate()
