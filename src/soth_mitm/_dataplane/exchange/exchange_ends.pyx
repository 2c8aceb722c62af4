"""How an exchange ends: both messages complete, or one of them cut; and when its last hook has returned."""

from soth_mitm._dataplane.exchange.exchange_shown cimport ExchangeShown
from soth_mitm._dataplane.exchange.exchange_state cimport EXCHANGE_ENDED
from soth_mitm._dataplane.exchange.open_websockets cimport OpenWebSockets
from soth_mitm._dataplane.exchange.states cimport INPUT_END, INPUT_SENT, REQUEST_ACQUIRE, RESPONSE_DONE, RESPONSE_RELAY
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel
from soth_mitm._dataplane.http.counters cimport END_CUT_BY_CLIENT, END_CUT_BY_PROXY
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream
from soth_mitm._dataplane.memory.ledger cimport LEDGER_FLOW, note


# not final: the next part derives from it
cdef class ExchangeEnds(ExchangeShown):
    """How an exchange ends."""

    # ---- one direction

    cdef int drop_upstream(self) except -1:
        cdef Stream upstream = self.upstream
        if upstream is None:
            return 0
        self.upstream = None
        return upstream.reset(None)

    cdef int stop_upload(self) except -1:
        if self.client_deadline is not None:
            self.client_deadline.clear()
        if self.own_request is not None:
            self.own_request.close()
        if self.up_stages is not None:
            self.up_stages.close()
        self.move_request(INPUT_SENT)
        return self.drop_upstream()

    cdef int refuse_rest(self) except -1:
        self.drop_upstream()
        self.client.refuse_rest()
        return self.terminate()

    # ---- both of them

    cdef int finish(self) except -1:
        cdef Stream client = self.client
        cdef Stream upstream = self.upstream
        self.move_request(INPUT_END)
        self.upstream = None
        self.clear_deadlines()
        if upstream is not None:
            upstream.release(self.sent, self.response, self.connection)
        self.end()
        return client.release(None, None, None)

    cdef int abort(self, object error) except -1:
        if self.is_over():
            return 0
        self.note_cut(error)
        self.client.reset(error)
        return self.terminate()

    cdef int cut(self, object error) except -1:
        return self.truncate(error) if self.has_response() else self.abort(error)

    cdef int abort_if_cut(self) except -1:
        # everything that is here of the request was taken, and it is not complete
        return self.lose_client(ConnectionResetError("the client closed the connection")) if self.client.is_peer_gone() else 0

    cdef int truncate(self, object error) except -1:
        if self.is_over():
            return 0
        self.note_cut(error)
        self.client.truncate(self.response_state == RESPONSE_RELAY, error)
        return self.terminate()

    cdef int lose_client(self, object error) except -1:
        # what the proxy ends itself comes here too
        self.note_fault(END_CUT_BY_PROXY if isinstance(error, ConnectionAbortedError) else END_CUT_BY_CLIENT)
        return self.abort(error)

    cdef int note_cut(self, object error) except -1:
        self.note_fault(END_CUT_BY_PROXY)
        if self.cause is None:
            self.cause = error
        if self.has_response() and self.response_state != RESPONSE_DONE:
            self.settings.counters.responses_cut += 1
        return 0

    cdef int on_hook_abort(self, object error) except -1:
        # a reference of our own: it may end meanwhile
        cdef StreamTunnel tunnel = self.tunnel
        if self.down is not None:
            self.down.stop()
        if self.up is not None:
            self.up.stop()
        self.close_stages()
        self.response_copy = None
        if tunnel is not None and not self.is_over():
            if self.cause is None:
                self.cause = error
            return tunnel.fail_hook()
        return self.connection.abort_after(error) if self.is_over() else self.truncate(error)

    cdef int terminate(self) except -1:
        cdef bint is_waiting = self.request_state == REQUEST_ACQUIRE
        if self.is_over():
            return 0
        self.move_request(INPUT_END)
        self.clear_deadlines()
        if is_waiting:
            self.pool.cancel(self)
        self.drop_upstream()
        self.end_response(False)
        return self.end()

    cdef int end(self) except -1:
        if self.has_ended:
            return 0
        self.leave_decision()
        if self.asking is not None:
            # its answer is of no use to anything else
            self.asking.give_up()
            self.asking = None
        self.drop_held()
        self.end_upload()
        if self.own_request is not None:
            self.own_request.close()
        if self.own_answer is not None:
            self.own_answer.close()
        self.close_stages()
        self.has_ended = True
        if self.is_websocket:
            self.settings.counters.websocket_connections -= 1
        if self.tunnel is not None:
            (<OpenWebSockets>self.settings.websockets).remove(self.id)
            self.websocket_end = self.tunnel.summary()
            # it refers to us
            self.tunnel = None
        self.pressure = 0
        if self.queue is not None:
            self.queue.close()
        if self.share is not None:
            self.share.stop_waiting()
        self.settings.counters.active_flows -= 1
        self.count_end()
        note(LEDGER_FLOW, -1)
        self.tell_observer(EXCHANGE_ENDED)
        if self.recording is not None:
            self.record_end()
        self.ask_afterwards()
        if (self.is_streaming or self.has_uploaded()) and self.hooks.on_stream_end is not None:
            self.push(self.hooks.on_stream_end, self.route.meta.connection_id, self.id)
        return self.settle()

    cdef bint has_uploaded(self) noexcept:
        if self.up_stages is not None:
            return self.up_stages.filter.sequence > 0
        return self.up is not None and self.up.sequence > 0

    cdef int close_stages(self) except -1:
        if self.down_stages is not None:
            self.down_stages.close()
        if self.up_stages is not None:
            self.up_stages.close()
        return 0

    # ---- the last hook

    cdef int on_call_begun(self) except -1:
        self.pending_calls += 1
        return 0

    cdef int on_call_returned(self) except -1:
        self.pending_calls -= 1
        return self.settle()

    cdef int on_queue_idle(self) except -1:
        return self.settle()

    cdef int settle(self) except -1:
        cdef HttpConnection connection = self.connection
        cdef Stream client
        if not self.has_ended or self.is_settled or self.pending_calls or (self.queue is not None and not self.queue.is_idle()):
            return 0
        self.is_settled = True
        self.settings.arena.budget.give(self.head_octets)
        if self.share is not None:
            if self.share.held:
                self.refund(self.share.held)
            # they refer to us
            self.share.owner = None
        if self.queue is not None:
            self.queue.owner = None
        client, self.client = self.client, None
        return connection.on_exchange_settled(client)
