"""A switch to another protocol (101), and the WebSocket that it may open."""

from soth_mitm._dataplane.exchange.exchange_changes cimport ExchangeChanges
from soth_mitm._dataplane.exchange.exchange_state cimport EXCHANGE_ANSWERED
from soth_mitm._dataplane.exchange.flow_recording cimport ANSWERED_BY_UPSTREAM
from soth_mitm._dataplane.exchange.message_filter cimport MessageFilter, new_message_filter
from soth_mitm._dataplane.exchange.message_tap cimport new_message_tap
from soth_mitm._dataplane.exchange.open_websockets cimport OpenWebSockets
from soth_mitm._dataplane.exchange.states cimport INPUT_SWITCH, REQUEST_SENT
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel
from soth_mitm._dataplane.http.upgrade cimport names_protocol, was_offered
from soth_mitm._dataplane.websocket.handshake cimport (
    Agreement, asks_for_websocket, handshake_fault_text, read_agreement, remove_other_offers, response_fault,
)
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


# not final: the next part derives from it
cdef class ExchangeUpgrades(ExchangeChanges):
    """A switch to another protocol."""

    cdef bint opens_websocket(self) noexcept:
        return self.keep_upgrade and asks_for_websocket(self.sent)

    cdef bint reads_messages(self) noexcept:
        return self.message_terms is not None or self.shows_messages() or (
            self.recording is not None and self.records_messages())

    cdef HeadEdits websocket_edits(self):
        cdef HeadEdits edits
        cdef int removed
        if not (self.reads_messages() and self.opens_websocket()):
            return None
        # messages of an extension that we do not know could not be read
        edits = HeadEdits()
        removed = remove_other_offers(self.sent, edits)
        self.settings.counters.websocket_offers_removed += removed
        return edits if removed else None

    cdef bint refuse_switch(self, Head head) except -1:
        if self.keep_upgrade and self.request_state == REQUEST_SENT and was_offered(self.sent, head):
            return False
        self.fail_upstream(502, b"the upstream switched to a protocol that it was not asked for")
        return True

    cdef int switch_protocols(self, Head head) except -1:
        if names_protocol(head, b"websocket", 9) and not self.open_websocket(head):
            return 0
        self.settings.counters.upgrades += 1
        self.response = head
        self.charge_head(head)
        if self.relayed is None:
            self.relayed = head
        self.status = head.status
        self.strip_alternatives(head)
        self.is_streaming = self.hooks is not None
        self.tell_observer(EXCHANGE_ANSWERED)
        if self.recording is not None:
            self.record_response(ANSWERED_BY_UPSTREAM)
        # to the client before the handler hears of it
        self.client.send_interim(self.relayed)
        self.client.flush()
        if self.hooks is not None:
            self.show_response_head()
        if self.is_over():
            return 0
        self.move_response(INPUT_SWITCH)
        self.clear_deadlines()
        upstream, self.upstream = self.upstream, None
        return self.client.switch_protocols(upstream, head)

    cdef bint open_websocket(self, Head head) except -1:
        """Judge the 101; false: the client was told that it opens no WebSocket."""
        cdef Agreement agreement
        cdef int fault = response_fault(self.sent, head)
        if not fault and self.reads_messages():
            fault = read_agreement(self.sent, head, &agreement)
        if fault:
            self.settings.counters.websocket_bad_handshakes += 1
            self.fail_upstream(502, f"the upstream opened no WebSocket: {handshake_fault_text(fault)}".encode())
            return False
        self.settings.counters.websocket_upgrades += 1
        self.settings.counters.websocket_connections += 1
        self.is_websocket = True
        if self.reads_messages():
            if self.message_terms is not None or self.filters_messages():
                self.from_client = self.new_filter(True, &agreement)
                self.from_upstream = self.new_filter(False, &agreement)
            else:
                self.from_client = new_message_tap(self.settings, self.own_share(), True, &agreement)
                self.from_upstream = new_message_tap(self.settings, self.own_share(), False, &agreement)
            self.from_client.recording = self.from_upstream.recording = self.recording
        return True

    cdef MessageFilter new_filter(self, bint from_client, const Agreement* agreement):
        return new_message_filter(
            self.settings, self.own_share(), from_client, agreement, self.filters_messages(), self.message_terms)

    cdef bint has_taps(self) noexcept:
        return self.from_client is not None

    cdef int watch(self, StreamTunnel tunnel) except -1:
        tunnel.recording = self.recording
        if not self.has_taps():
            return 0
        self.tunnel = tunnel
        (<OpenWebSockets>self.settings.websockets).add(self.id, tunnel)
        return tunnel.watch(self, self.from_client, self.from_upstream, self.pressure)
