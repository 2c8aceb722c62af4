# A switch to another protocol, and the WebSocket that it may open.

from soth_mitm._dataplane.exchange.exchange_changes cimport ExchangeChanges
from soth_mitm._dataplane.exchange.message_filter cimport MessageFilter
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel
from soth_mitm._dataplane.websocket.handshake cimport Agreement
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


cdef class ExchangeUpgrades(ExchangeChanges):
    cdef bint opens_websocket(self) noexcept           # the request asks for one
    cdef bint reads_messages(self) noexcept            # of it: they are shown, decided about, or searched for credentials
    cdef MessageFilter new_filter(self, bint from_client, const Agreement* agreement)
    cdef HeadEdits websocket_edits(self)               # of the request: offers that we cannot read are removed
    cdef bint refuse_switch(self, Head head) except -1     # true: nobody asked for it, and that was answered
    cdef int switch_protocols(self, Head head) except -1
    cdef bint open_websocket(self, Head head) except -1
    cdef bint has_taps(self) noexcept                  # the messages of this WebSocket are shown
    cdef int watch(self, StreamTunnel tunnel) except -1    # it has these taps, if there are any
