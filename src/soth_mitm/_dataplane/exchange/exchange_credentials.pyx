"""Credentials of a request: it is searched for what may not go where it goes, and the values that it needs are put in as it is written.

What the handler, the log and the observer see of the request, and what is asked about it later, is the one with the placeholders.
"""

from cpython.bytes cimport PyBytes_GET_SIZE

from soth_mitm._dataplane.exchange.body_buffer cimport BodyCopy
from soth_mitm._dataplane.exchange.credentials cimport new_upload_search
from soth_mitm._dataplane.exchange.exchange_upgrades cimport ExchangeUpgrades
from soth_mitm._dataplane.exchange.own_body cimport new_own_bytes
from soth_mitm._dataplane.exchange.redacted_stream cimport RedactedStream, new_redacted_stream, redacted_head
from soth_mitm._dataplane.exchange.states cimport INPUT_RESOLVE
from soth_mitm._dataplane.http.counters cimport END_BLOCKED, END_REFUSED
from soth_mitm._dataplane.http.messages cimport new_request
from soth_mitm._dataplane.http.stream cimport ANY_LENGTH
from soth_mitm._dataplane.wire.decode cimport DECODED_AT_ONCE, Decoder, decoder_for
from soth_mitm._dataplane.wire.grpc cimport GrpcParts, new_grpc_parts
from soth_mitm._dataplane.wire.head cimport METHOD_HEAD, Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits
from soth_mitm._dataplane.wire.headers cimport content_encoding_of
from soth_mitm._dataplane.wire.redactor cimport Redactor, SearchedStrings
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC, STREAM_GRPC_WEB, STREAM_GRPC_WEB_TEXT, grpc_encoding_of, stream_of


# What is wrong once a body has another value in it (RFC 9530 and before)
DIGESTS = (b"content-md5", b"digest", b"content-digest", b"repr-digest")


# not final: the next part derives from it
cdef class ExchangeCredentials(ExchangeUpgrades):
    """Credentials of the request."""

    cdef bint settle_credentials(self) except -1:
        cdef object store = self.settings.credentials
        cdef set needed
        cdef bytes body = self.whole_body()
        self.terms = store.terms(self.way.pool.origin, self.way.authority, self.way is not self.route)
        if not self.unpack_body(body):
            return False
        if (self.terms.forbids_head(self.sent)
                or (body is not None and self.terms.forbids(body))
                or (self.plain_body is not None and self.terms.forbids(self.plain_body))
                or (self.request_trailers is not None and self.terms.forbids(self.request_trailers))
                or (self.buffered is not None and self.buffered.framing is not None
                    and self.terms.forbids(self.buffered.framing.whole()))):
            self.refuse_misdirected()
            return False
        needed = self.terms.needed_by_head(self.sent)
        if not self.fills_body():
            pass
        elif body is None:
            needed |= self.terms.all_in_body()
        elif body:
            needed |= self.terms.needed_by_body(self.sent, body if self.plain_body is None else self.plain_body)
        if self.opens_websocket():
            needed |= self.terms.all_in_messages()
        if not needed:
            return self.take_values({})
        values = store.values(needed)
        if values is not None:
            return self.take_values(values)
        self.move_request(INPUT_RESOLVE)
        store.resolve(
            needed, self.request_view or new_request(
                self.request, self.route.meta, self.id, self.route.scheme, self.route.authority, b"", self.settings.body_limit),
            self.on_values)
        return False

    cdef bint take_values(self, dict values) except -1:
        cdef bytes body = self.whole_body() if self.plain_body is None else self.plain_body
        cdef Redactor filling
        try:
            if values:
                # there may be one that is new
                self.terms = self.settings.credentials.terms(
                    self.way.pool.origin, self.way.authority, self.way is not self.route)
                self.filled = self.terms.filled_head(self.sent, values)
                self.body_strings = self.terms.body_strings(self.sent, values) if self.fills_body() else None
            if self.opens_websocket():
                self.message_terms = self.terms.message_terms(values, self.settings.credentials)
        except ValueError as error:
            self.refuse_unavailable(str(error))
            return False
        if self.body_strings is not None and body is not None:
            filling = Redactor(self.body_strings)
            self.filled_length = len(filling.feed(body)) + len(filling.finish())
            if filling.replaced == 0:
                self.body_strings = None
            elif self.plain_body is not None:
                self.send_plain()
        else:
            self.filled_length = ANY_LENGTH
        if self.plain_body is not None:
            if not self.leaves_plain:
                self.refund(PyBytes_GET_SIZE(self.plain_body))
            self.plain_body = None
        if values:
            # what messages have is counted as they are sent
            self.settings.credentials.count(self.terms.needed_by_head(self.sent) if self.opens_websocket() else values)
        return True

    # ---- a body with a content coding

    cdef bint fills_body(self) except -1:
        cdef int stream
        if not (self.has_body and self.terms.fills_bodies):
            return False
        # messages of gRPC say how long they are, and what is in them says that too
        for types in (None, self.settings.stream_types):
            stream = stream_of(self.sent, types)
            if STREAM_GRPC <= stream <= STREAM_GRPC_WEB_TEXT:
                return False
        return True

    cdef bint unpack_body(self, bytes body) except -1:
        cdef Decoder decoder
        cdef bint fills
        self.plain_body = None
        if body is not None and not body:
            return True
        decoder = decoder_for(content_encoding_of(self.sent), self.settings.body_limit, False, True)
        fills = self.fills_body()
        if decoder is None or (self.terms.forbidden is None and not fills):
            return True
        if decoder.error is not None:
            # of a coding that is not known: it is searched as it is
            return not fills or self.refuse_coded(decoder.error)
        if body is None:
            # it is decoded as it passes
            return True
        self.plain_body = decoder.feed(body)
        self.charge(PyBytes_GET_SIZE(self.plain_body))
        decoder.finish()
        return decoder.error is None or self.refuse_coded(decoder.error)

    cdef bint refuse_coded(self, str why) except -1:
        self.refuse(415, f"credential_unsearched: the request body is encoded, and cannot be searched for credentials: {why}".encode())
        return False

    cdef int send_plain(self) except -1:
        # messages of gRPC alone are filtered or shown on their way to an upstream, and nothing is put into these
        self.leaves_plain = True
        self.own_request = new_own_bytes(self.settings, self.plain_body)
        self.drop_buffered()
        if self.trailers_to_send() is not None:
            self.filled_length = ANY_LENGTH
        return 0

    cdef int refuse_misdirected(self) except -1:
        if self.upload_search is not None and self.upload_search.error is not None:
            return self.refuse_coded(self.upload_search.error)
        self.settings.counters.placeholders_blocked += 1
        self.note_fault(END_BLOCKED)
        return self.explain(
            403, f"placeholder_misdirected: the request has the placeholder or the value of a credential in it, and "
                 f"{self.way.pool.origin} is no destination of that credential (credentials.destinations)".encode())

    cdef int refuse_unavailable(self, str why) except -1:
        self.settings.counters.credentials_unavailable += 1
        self.note_fault(END_REFUSED)
        return self.explain(502, b"credential_unavailable: " + why.encode())

    cdef bytes whole_body(self):
        cdef BodyCopy content
        if not self.has_body:
            return b""
        if self.own_request is not None:
            return self.own_request.piece if self.own_request.source is None else None
        if self.buffered is None or not self.client.is_complete():
            return None
        content = self.buffered.content
        return None if content.truncated else content.whole()

    cdef int search_upload(self) except -1:
        cdef Decoder decoder = None
        cdef GrpcParts messages = None
        cdef int stream
        self.upload_search = None
        if self.has_body and (self.body_strings is not None or self.whole_body() is None):
            stream = stream_of(self.sent, None)
            if stream == STREAM_GRPC or stream == STREAM_GRPC_WEB:
                messages = new_grpc_parts(grpc_encoding_of(self.sent), self.settings.body_limit)
            if self.whole_body() is None and not self.filters_request:
                decoder = decoder_for(content_encoding_of(self.sent), DECODED_AT_ONCE, True, True)
                if decoder is not None and decoder.error is not None:
                    decoder = None
                self.leaves_plain = decoder is not None and self.body_strings is not None
            self.upload_search = new_upload_search(self.terms, self.body_strings, decoder, messages)
        return self.count_search()

    cdef int count_search(self) except -1:
        cdef Py_ssize_t before = self.search_held
        self.search_held = 0 if self.upload_search is None else self.upload_search.held()
        if self.search_held > before:
            return self.charge(self.search_held - before)
        return self.refund(before - self.search_held) if self.search_held < before else 0

    cdef HeadEdits request_edits(self, HeadEdits edits):
        cdef bytes name
        if self.redacts():
            # a part of a body may begin or end within a value
            edits = HeadEdits() if edits is None else edits
            edits.put(b"range", None)
            edits.put(b"if-range", None)
        if self.leaves_plain:
            edits = HeadEdits() if edits is None else edits
            edits.put(b"content-encoding", None)
        if self.body_strings is None:
            return edits
        edits = HeadEdits() if edits is None else edits
        if self.filled_length == ANY_LENGTH:
            edits.frame_without_content()
        for name in DIGESTS:
            edits.put(name, None)
        return edits

    # ---- the response

    cdef bint redacts(self) noexcept:
        return self.terms is not None and self.terms.redaction is not None

    cdef Head without_values(self, Head head):
        cdef SearchedStrings strings = self.terms.redaction
        cdef RedactedStream redacted
        cdef GrpcParts messages = None
        cdef int stream
        try:
            if head.status < 200 or head.status == 204 or head.status == 304 or self.request.method == METHOD_HEAD:
                return redacted_head(head, strings, False)
            stream = stream_of(head, None)
            if stream == STREAM_GRPC or stream == STREAM_GRPC_WEB:
                messages = new_grpc_parts(grpc_encoding_of(head), self.settings.body_limit)
            redacted = new_redacted_stream(
                self.upstream, self, self.own_share(), head, strings if messages is None else self.terms.grpc_redaction, messages)
            if redacted is None:
                self.fail_upstream(
                    502, b"the response has a Content-Encoding or grpc-encoding that cannot be decoded, and so not searched for values "
                         b"(credentials.redact)")
                return None
            self.upstream = redacted
            return redacted_head(head, strings, True)
        except ValueError as error:
            self.fail_upstream(502, f"the response cannot be searched for values of credentials: {error}".encode())
            return None
