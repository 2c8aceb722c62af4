"""The response's way, on one client connection: its head is read and passed on, then its body as it comes, or another protocol begins."""

from soth_mitm._dataplane.http1.framing cimport (
    BODY_CHUNKED, BODY_DONE, BODY_UNTIL_CLOSE, Body, body_error_text, body_next, body_of_response,
)
from soth_mitm._dataplane.exchange.conversation cimport (
    ANSWERING_DONE, ANSWERING_NONE, ANSWERING_RELAY, LATE_DOWNLOAD, SENDING_RELAY, SENDING_SENT, Conversation,
)
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.exchange.flow cimport FLOW_ANSWERED, Flow
from soth_mitm._dataplane.http1.head_parser cimport (
    HEAD_MALFORMED, HEAD_MORE, HEAD_TOO_LARGE, head_error_text, parse_response_head, too_large_text,
)
from soth_mitm._dataplane.wire.head cimport HTTP_1_0, Head
from soth_mitm._dataplane.transport.lingering_close cimport close_lingering
from soth_mitm._dataplane.upstream.pool cimport Upstream
from soth_mitm._dataplane.exchange.relay cimport Tunnel
from soth_mitm._dataplane.exchange.transfer cimport MOVED_ALL, MOVED_MORE, MOVED_NONSENSE, move_response
from soth_mitm._dataplane.http1.upgrade cimport was_offered
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.http1.encoder cimport response_head_bytes


cdef enum:
    MOST_INTERIMS = 64         # before one response: each begins its time anew


cdef bint begins_badly(Body* body, Endpoint source) noexcept:
    """Tell whether the very first of a body is malformed; then it has failed, else nothing of it is taken."""
    cdef Body seen = body[0]
    cdef View payload
    if body_next(&seen, source.read_buffer.data(), source.read_buffer.size(), &payload, NULL) >= 0:
        return False
    body[0] = seen
    return True


# not final: exchange derives from it
cdef class Responding(Conversation):
    """Responses to the requests of one client connection."""

    cdef int read_response_head(self) except -1:
        cdef Upstream upstream = self.upstream
        cdef Head head
        cdef Py_ssize_t size, used
        cdef bytes interim, why
        while True:
            size = upstream.read_buffer.size()
            if size == 0:
                return 0
            head = Head()
            used = parse_response_head(head, upstream.read_buffer.data(), size, self.settings.head_limit, self.settings.most_fields,
                                       &self.upstream_scanned)
            if used == HEAD_MORE:
                return 0
            if used == HEAD_TOO_LARGE:
                why = too_large_text(head, self.settings.head_limit, self.settings.most_fields)
                return self.fail_upstream(502, b"the upstream's response head " + why)
            if used == HEAD_MALFORMED:
                return self.fail_upstream(502, b"the upstream's response is malformed: " + head_error_text(head.error).encode())
            upstream.read_buffer.consume(used)
            self.upstream_scanned = 0
            self.settings.counters.bytes_from_upstreams += used
            if head.status == 101:
                return self.switch_protocols(head)
            if head.status >= 200:
                return self.begin_response(head)
            self.interims += 1
            if self.interims > MOST_INTERIMS:
                return self.fail_upstream(502, b"the upstream sent more than %d interim responses" % MOST_INTERIMS)
            if self.sending == SENDING_SENT:
                # it says that it is at work: its time begins anew
                self.on_writable(upstream, not upstream.write_paused)
            if self.flow.request.version != HTTP_1_0 and not (head.status == 100 and self.flow.continued):
                self.flow.stop_alternatives(head)
                interim = response_head_bytes(head, False, False, False, False)
                self.client.send_bytes(interim)
                self.settings.counters.bytes_to_clients += len(interim)

    cdef int begin_response(self, Head head) except -1:
        cdef Flow flow = self.flow
        cdef bint is_10 = flow.request.version == HTTP_1_0
        cdef bytes out
        body_of_response(&flow.response_body, head, flow.request.method, self.settings.head_limit, self.settings.most_fields)
        if begins_badly(&flow.response_body, self.upstream):
            return self.fail_upstream(502, b"the upstream's response is malformed: " + body_error_text(flow.response_body.error).encode())
        # which a client that speaks HTTP/1.0 cannot read
        flow.unchunked = flow.response_body.kind == BODY_CHUNKED and flow.request.version == HTTP_1_0
        if (flow.response_body.kind == BODY_UNTIL_CLOSE or flow.unchunked or self.settings.draining
                or ((self.is_pinned() or self.sending != SENDING_SENT) and not head.keeps_alive())):
            # the last: what is left of the upload will have nowhere to go
            self.keep = False
        flow.forget_collected()
        flow.begin_response(head)
        flow.tell_observer(FLOW_ANSWERED)
        out = response_head_bytes(head, not self.keep, self.keep and is_10, False, is_10)
        self.client.send_bytes(out)
        self.settings.counters.bytes_to_clients += len(out)
        self.answered = True
        self.answering = ANSWERING_RELAY
        self.upstream_deadline.set(self.settings.body_idle, LATE_DOWNLOAD)
        if flow.streaming:
            self.client.flush()
            flow.tell_head()
            if self.over:
                return 0
        return self.relay_response()

    cdef int switch_protocols(self, Head head) except -1:
        cdef Flow flow = self.flow
        cdef Upstream upstream = self.upstream
        if not flow.upgrade or self.sending != SENDING_SENT or not was_offered(flow.request, head):
            return self.fail_upstream(502, b"the upstream switched to a protocol that it was not asked for")
        self.settings.counters.upgrades += 1
        flow.begin_response(head)
        flow.tell_observer(FLOW_ANSWERED)
        self.client.send_bytes(response_head_bytes(head, False, False, True, False))
        self.client.flush()
        flow.tell_head()
        if self.over:
            return 0
        self.answered = True
        self.answering = ANSWERING_NONE
        self.client_deadline.clear()
        self.upstream_deadline.clear()
        self.reader_deadline.clear()
        if self.half_closed is not None:
            self.half_closed.clear()
        upstream.pool.forget(upstream)
        self.upstream = None
        self.tunnel = Tunnel(self.settings, self.client, upstream, self.tunnel_ended)
        self.tunnel.start()
        return 0

    cdef int relay_response(self) except -1:
        cdef int moved = move_response(self.flow, self.upstream, self.client)
        if self.over:
            return 0
        if moved == MOVED_ALL:
            return self.response_done()
        if moved == MOVED_MORE:
            # what comes meanwhile waits behind it, its end included
            self.is_behind = True
            self.upstream.pause_reading()
            return self.later()
        if moved == MOVED_NONSENSE:
            self.settings.counters.upstream_errors += 1
            why = body_error_text(self.flow.response_body.error)
            return self.cut_short(ValueError(f"the upstream's response body is malformed: {why}"))
        self.upstream_deadline.set(self.settings.body_idle, LATE_DOWNLOAD)
        if self.client.write_paused and not self.reads_ahead():
            self.upstream.pause_reading()
        return 0

    cdef int response_done(self) except -1:
        # a hook that is called from here may end the flow, which nobody else need hold on to
        cdef Flow flow = self.flow
        self.answering = ANSWERING_DONE
        self.upstream_deadline.clear()
        self.settings.counters.responses_relayed += 1
        self.client.flush()
        if self.sending != SENDING_SENT and (self.upstream is None or self.upstream.eof_delivered or self.upstream.gone):
            # an early response, and nobody left to send the rest of the request to
            if flow.request_body.state == BODY_DONE:
                self.send_no_more()
                return flow.end_response(True)
            self.drop_upstream()
            close_lingering(self.client, self.settings)
            flow.end_response(True)
            return self.stop()
        if self.sending == SENDING_RELAY:
            self.await_upload()
        return flow.end_response(True)
