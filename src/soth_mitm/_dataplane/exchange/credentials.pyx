"""Credentials of requests: what may go which way, which values a request needs, and the head and the body with the values in them.

A head is written anew with the values in it and parsed like one that came from a client, so no value can be more than a value. That head
is the writer's alone. All else is shown the one with the placeholders.

Everything is replaced in one pass: a value that looks like a placeholder stays.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

import base64
import binascii
import json
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.http1.head_parser cimport HEAD_MALFORMED, HEAD_TOO_LARGE, head_error_text, parse_request_head
from soth_mitm._dataplane.websocket.frame cimport LONGEST_CONTROL
from soth_mitm._dataplane.wire.decode cimport CODED_AT_ONCE, DECODED_AT_ONCE, Decoder, decoder_for
from soth_mitm._dataplane.wire.grpc cimport PART_END, PART_PACKED, GrpcParts, new_grpc_parts
from soth_mitm._dataplane.wire.head cimport FIELD_CONTENT_TYPE, METHOD_TRACE, TARGET_ORIGIN, Field, Head
from soth_mitm._dataplane.wire.redactor cimport Lookout, Redactor, SearchedStrings


cdef enum BodyForm:
    BODY_AS_IS = 0
    BODY_JSON
    BODY_FORM


cdef enum:
    MOST_CODED_HELD = 65536    # bytes of a coded body that bring no content


@cython.final
cdef class CredentialPlaces:
    """Where the placeholder of one credential is replaced.

    `places` are those of the configuration; `spellings` those of the placeholder in a body: as it is, in JSON, in a form.
    """

    def __cinit__(self, int number, bytes placeholder not None, places, tuple spellings not None):
        pairs = [place.partition(":") for place in places]
        self.number = number
        self.placeholder = placeholder
        self.headers = frozenset([name.lower().encode() for kind, _, name in pairs if kind == "header"])
        self.parameters = frozenset([name.encode() for kind, _, name in pairs if kind == "query"])
        self.in_basic = "basic" in places
        self.in_path = "path" in places
        self.in_body = "body" in places
        self.in_messages = "websocket" in places
        self.spellings = spellings


@cython.final
cdef class Filling:
    """One pass through a head. Without values it finds out which are needed, and changes nothing."""

    cdef CredentialTerms terms
    cdef dict values
    cdef set found                 # numbers of the credentials that were in a place of theirs
    cdef str kind                  # of the place that is being read
    cdef bytes name                # of the header or parameter
    cdef bint is_encoded           # a value is percent-encoded there

    def put(self, match):
        """Return what a placeholder leaves as. Called for each, by `re`."""
        cdef CredentialPlaces places = self.terms.permitted[match[0]]
        if not self.is_place_of(places):
            return match[0]
        self.found.add(places.number)
        if self.values is None:
            return match[0]
        return quote_from_bytes(self.values[places.number], safe="").encode() if self.is_encoded else self.values[places.number]

    cdef bint is_place_of(self, CredentialPlaces places) except -1:
        if self.kind == "header":
            return self.name in places.headers
        if self.kind == "query":
            return self.name in places.parameters
        return places.in_basic if self.kind == "basic" else places.in_path

    cdef bytes fill(self, bytes text):
        return self.terms.pattern.sub(self.put, text)

    cdef bytes fill_header(self, bytes name, bytes value):
        cdef bytes scheme, credentials
        self.kind, self.name, self.is_encoded = "header", name, False
        value = self.fill(value)
        if name != b"authorization":
            return value
        scheme, _, credentials = value.partition(b" ")
        if scheme.lower() != b"basic":
            return value
        try:
            decoded = base64.b64decode(credentials.strip(b" \t"), validate=True)
        except binascii.Error:
            return value
        self.kind = "basic"
        filled = self.fill(decoded)
        return value if filled == decoded else scheme + b" " + base64.b64encode(filled)

    cdef bytes fill_target(self, bytes target):
        cdef bytes path, mark, query, name, equals, value
        cdef list parameters = []
        path, mark, query = target.partition(b"?")
        self.is_encoded = True
        self.kind = "path"
        path = b"/".join([self.fill_encoded(segment, False) for segment in path.split(b"/")])
        self.kind = "query"
        for parameter in query.split(b"&"):
            name, equals, value = parameter.partition(b"=")
            self.name = unquote_to_bytes(name.replace(b"+", b" "))
            parameters.append(name + equals + self.fill_encoded(value, True))
        return path + mark + b"&".join(parameters)

    cdef bytes fill_encoded(self, bytes text, bint is_form):
        cdef bytes filled = self.fill(text), decoded
        if filled != text or b"%" not in text:
            return filled
        decoded = unquote_to_bytes(text.replace(b"+", b" ") if is_form else text)
        self.is_encoded = False
        filled = self.fill(decoded)
        self.is_encoded = True
        return text if filled == decoded else quote_from_bytes(filled, safe="").encode()

    cdef bytes walk(self, Head head, set changed):
        """Return the bytes of a head with what leaves in it; `changed` is given the indexes of its fields, -1 the target."""
        cdef bytes raw = head.raw
        cdef list parts = []
        cdef Field* field
        cdef bytes before, after
        cdef Py_ssize_t at = 0
        cdef int i
        for i in range(-1, head.count):
            if i < 0:
                if head.form != TARGET_ORIGIN:
                    continue
                begin, length = head.target, head.target_len
                before = raw[begin:begin + length]
                after = self.fill_target(before)
            else:
                field = &head.fields[i]
                if field.hop:
                    continue
                begin, length = field.value, field.value_len
                before = raw[begin:begin + length]
                after = self.fill_header(raw[field.line:field.line + field.name_len].lower(), before)
            if after != before:
                parts.append(raw[at:begin])
                parts.append(after)
                at = begin + length
                changed.add(i)
        parts.append(raw[at:])
        return b"".join(parts)


cdef Filling new_filling(CredentialTerms terms, dict values):
    cdef Filling filling = Filling.__new__(Filling)
    filling.terms = terms
    filling.values = values
    filling.found = set()
    return filling


@cython.final
cdef class CredentialTerms:
    """What holds for the requests that go one way.

    `forbidden` are texts that may not go there, in all their spellings. `permitted` are the places of credentials that may, and `wanted`
    their placeholders in all their spellings. `redaction` has the placeholder for each spelling of a value that is to be
    in no response.
    """

    def __cinit__(self, forbidden, permitted, wanted, dict redaction=None):
        cdef CredentialPlaces places
        self.forbidden = SearchedStrings(forbidden) if forbidden else None
        self.wanted = SearchedStrings(wanted) if wanted else None
        self.permitted = {}
        for places in permitted:
            self.permitted[places.placeholder] = places
            self.fills_bodies = self.fills_bodies or places.in_body
            self.fills_messages = self.fills_messages or places.in_messages
        if redaction:
            self.redaction = SearchedStrings(redaction)
            self.grpc_redaction = SearchedStrings({spelling: b"*" * len(spelling) for spelling in redaction})
        self.pattern = re.compile(b"|".join([re.escape(placeholder) for placeholder in self.permitted]))

    cdef bint forbids(self, bytes data) noexcept:
        return self.forbidden is not None and self.forbidden.is_in(data)

    cdef bint forbids_head(self, Head head) except -1:
        if self.forbidden is None:
            return False
        return self.forbidden.is_in(head.raw) or (
            is_encoded(head) and self.forbidden.is_in(unquote_to_bytes(head.raw[head.target:head.target + head.target_len])))

    cdef bint may_fill(self, Head head) except -1:
        return self.wanted is not None and (self.wanted.is_in(head.raw) or is_encoded(head))

    cdef set needed_by_head(self, Head head):
        cdef Filling filling
        # RFC 9110 section 9.3.8: a TRACE comes back to whom it may not be shown
        if head.method == METHOD_TRACE or not self.may_fill(head):
            return set()
        filling = new_filling(self, None)
        filling.walk(head, set())
        return filling.found

    cdef set needed_by_body(self, Head head, bytes body):
        cdef CredentialPlaces places
        cdef set needed = set()
        cdef int form
        if not self.fills_bodies or self.wanted is None or not self.wanted.is_in(body):
            return needed
        form = body_form(head)
        for places in self.permitted.values():
            if places.in_body and any([spelling in body for spelling in places.spellings[form]]):
                needed.add(places.number)
        return needed

    cdef set all_in_body(self):
        cdef CredentialPlaces places
        cdef set numbers = set()
        for places in self.permitted.values():
            if places.in_body:
                numbers.add(places.number)
        return numbers

    cdef set all_in_messages(self):
        cdef CredentialPlaces places
        cdef set numbers = set()
        for places in self.permitted.values():
            if places.in_messages:
                numbers.add(places.number)
        return numbers

    cdef MessageTerms message_terms(self, dict values, object counted):
        cdef MessageTerms terms = MessageTerms.__new__(MessageTerms)
        cdef CredentialPlaces places
        cdef dict text = {}, coded = {}
        terms.forbidden = self.forbidden
        terms.redaction = self.redaction
        terms.binary_redaction = self.grpc_redaction
        terms.counted = counted
        terms.numbers = []
        for places in self.permitted.values():
            if not places.in_messages or places.number not in values:
                continue
            value = values[places.number]
            quoted = written_in_body(value, BODY_JSON)
            text[places.placeholder] = value
            for spelling in places.spellings[<int>BODY_JSON]:
                coded[spelling] = quoted
            terms.numbers.append((places.number, places.spellings[<int>BODY_JSON]))
        if text:
            terms.in_text = SearchedStrings(text)
            terms.in_json = SearchedStrings(coded)
        elif terms.forbidden is None and terms.redaction is None:
            return None
        return terms

    cdef Head filled_head(self, Head head, dict values):
        cdef set changed = set()
        cdef bytes raw
        cdef Head filled
        cdef Py_ssize_t scanned = 0, used
        cdef int i
        if not self.may_fill(head):
            return head
        raw = new_filling(self, values).walk(head, changed)
        if not changed:
            return head
        filled = Head()
        used = parse_request_head(filled, PyBytes_AS_STRING(raw), len(raw), len(raw) + 1, head.count + 1, &scanned)
        if used == HEAD_MALFORMED:
            raise ValueError(f"the value cannot stand there: {head_error_text(filled.error)}")
        if used != len(raw) or used == HEAD_TOO_LARGE or filled.count != head.count:
            raise ValueError("the value cannot stand there: the head would be read in another way")
        filled.version = head.version
        filled.target_sensitive = -1 in changed
        for i in range(head.count):
            filled.fields[i].hop = head.fields[i].hop
            filled.fields[i].sensitive = head.fields[i].sensitive or i in changed
        return filled

    cdef SearchedStrings body_strings(self, Head head, dict values):
        cdef CredentialPlaces places
        cdef dict strings = {}
        cdef int form = body_form(head)
        for places in self.permitted.values():
            if places.in_body and places.number in values:
                value = written_in_body(values[places.number], form)
                for spelling in places.spellings[form]:
                    strings[spelling] = value
        return SearchedStrings(strings) if strings else None


cdef bint is_encoded(Head head) noexcept:
    """Tell whether something in the target is percent-encoded, in whatever spelling."""
    return memchr(head.base() + head.target, c"%", head.target_len) != NULL


cdef int body_form(Head head) except -1:
    """Return the form in which a value is written into the body of a message."""
    cdef int index = head.find_known(FIELD_CONTENT_TYPE)
    cdef bytes media_type
    if index < 0:
        return BODY_AS_IS
    media_type = head.raw[head.fields[index].value:head.fields[index].value + head.fields[index].value_len]
    media_type = media_type.partition(b";")[0].strip(b" \t").lower()
    if media_type.endswith((b"/json", b"+json", b"ndjson", b"jsonl", b"json-seq")):
        return BODY_JSON
    return BODY_FORM if media_type == b"application/x-www-form-urlencoded" else BODY_AS_IS


cdef bytes written_in_body(bytes value, int form):
    if form == BODY_FORM:
        return quote_from_bytes(value, safe="").encode()
    if form == BODY_AS_IS:
        return value
    try:
        quoted = json.dumps(value.decode())
        return quoted[1:len(quoted) - 1].encode()
    except UnicodeDecodeError:
        # the original shows the value
        raise ValueError("the value cannot stand in JSON: it is not UTF-8") from None


@cython.final
cdef class MessageTerms:
    """What holds for the messages of one WebSocket. What stands in several messages is not found."""

    cdef bint forbids(self, bytes payload) noexcept:
        return self.forbidden is not None and self.forbidden.is_in(payload)

    cdef bytes with_values(self, bytes payload):
        cdef SearchedStrings strings
        cdef Redactor filling
        cdef bytes left
        if self.in_text is None:
            return payload
        strings = self.in_json if payload.lstrip(b" \t\r\n")[:1] in (b"{", b"[", b'"') else self.in_text
        if not strings.is_in(payload):
            return payload
        filling = Redactor(strings)
        left = filling.feed(payload) + filling.finish()
        self.counted.count([number for number, spellings in self.numbers if any([each in payload for each in spellings])])
        return left

    cdef bytes without_values(self, bytes payload, bint is_text):
        cdef SearchedStrings strings = self.redaction if is_text else self.binary_redaction
        cdef Redactor redactor
        cdef bytes left
        if strings is None or not strings.is_in(payload):
            return payload
        redactor = Redactor(strings)
        left = redactor.feed(payload) + redactor.finish()
        self.counted.count_redacted(redactor.replaced)
        return left

    cdef bytes close_without_values(self, bytes payload):
        cdef bytes reason = payload[2:]
        cdef bytes left = self.without_values(reason, True)
        if left is reason:
            return payload
        # a placeholder may be longer, and a Close has 125 octets at most
        return payload[:2] + left[:LONGEST_CONTROL - 2].decode("utf-8", "ignore").encode()


@cython.final
cdef class UploadSearch:
    """A body on its way to an upstream: what may not go there ends it, and placeholders are replaced."""

    cdef bytes feed(self, bytes data):
        cdef Py_ssize_t at
        cdef list decoded
        if self.leaves_plain:
            decoded = []
            for at in range(0, len(data), CODED_AT_ONCE):
                decoded.append(self.decoder.feed(data[at:at + CODED_AT_ONCE]))
            data = b"".join(decoded)
            self.error = self.decoder.error
            if self.error is not None:
                return None
        if self.messages is not None:
            data = self.feed_messages(data)
        elif self.lookout is not None:
            data = self.lookout.feed(data)
        if self.plain is not None and data is not None:
            data = self.feed_decoded(data)
        return data if self.filling is None or data is None else self.filling.feed(data)

    cdef bytes feed_decoded(self, bytes data):
        cdef Py_ssize_t at
        self.coded += data
        for at in range(0, len(data), CODED_AT_ONCE):
            if self.plain.feed(self.decoder.feed(data[at:at + CODED_AT_ONCE])) is None:
                return None
            if self.decoder.error is not None:
                self.error = self.decoder.error
                return None
        if self.plain.held_bytes == 0:
            data, self.coded = self.coded, b""
            return data
        if len(self.coded) > MOST_CODED_HELD:
            self.error = "it goes on without content"
            return None
        return b""

    cdef bytes feed_messages(self, bytes data):
        cdef list parts = self.messages.feed(data)
        cdef list out = []
        cdef bytes piece
        cdef bytes content
        if parts is None:
            self.error = self.messages.error
            return None
        for kind, piece in parts:
            if kind == PART_PACKED:
                content = self.messages.unpacked(piece)
                if content is None:
                    self.error = self.messages.error
                    return None
                if self.lookout.searched.is_in(content):
                    self.lookout.has_found = True
            if piece:
                piece = self.lookout.feed(piece)
                if piece is None:
                    return None
                out.append(piece)
            if kind == PART_END or kind == PART_PACKED:
                # it may be answered before more comes
                out.append(self.lookout.let_go())
        return b"".join(out)

    cdef bytes finish(self):
        cdef bytes data = b""
        if self.messages is not None:
            if self.messages.packed is not None:
                self.error = "a compressed message of gRPC is cut"
                return None
            data = self.lookout.feed(self.messages.prefix)
            if data is None:
                return None
        if self.lookout is not None:
            left = self.lookout.finish()
            data = None if left is None else data + left
        if self.decoder is not None and data is not None:
            if self.plain is not None:
                data = self.feed_decoded(data)
                if data is None:
                    return None
            self.decoder.finish()
            self.error = self.decoder.error
            if self.error is not None:
                return None
            if self.plain is not None:
                if self.plain.finish() is None:
                    return None
                data += self.coded
                self.coded = b""
        if self.filling is None or data is None:
            return data
        return self.filling.feed(data) + self.filling.finish()

    cdef Py_ssize_t held(self) noexcept:
        cdef Py_ssize_t count = 0
        if self.lookout is not None:
            count += PyBytes_GET_SIZE(self.lookout.context)
        if self.filling is not None:
            count += PyBytes_GET_SIZE(self.filling.held)
        if self.messages is not None:
            count += self.messages.held()
        if self.plain is not None:
            count += PyBytes_GET_SIZE(self.coded) + PyBytes_GET_SIZE(self.plain.context)
        return count

    cdef int send(self, Stream sink, const char* data, Py_ssize_t length) except -1:
        return self.send_bytes(sink, self.feed(data[:length]))

    cdef int send_rest(self, Stream sink) except -1:
        return self.send_bytes(sink, self.finish())

    cdef int send_bytes(self, Stream sink, bytes data) except -1:
        return 0 if not data else sink.send_content(PyBytes_AS_STRING(data), len(data))

    cdef bint has_found(self) noexcept:
        return self.error is not None or (self.lookout is not None and self.lookout.has_found) or (
            self.plain is not None and self.plain.has_found)


cdef UploadSearch new_upload_search(CredentialTerms terms, SearchedStrings strings, Decoder decoder, GrpcParts messages):
    cdef UploadSearch search
    if terms.forbidden is None and strings is None:
        return None
    search = UploadSearch.__new__(UploadSearch)
    if terms.forbidden is not None:
        search.lookout = Lookout(terms.forbidden)
        search.messages = messages
        if decoder is not None and strings is None:
            search.plain = Lookout(terms.forbidden)
            search.coded = b""
    search.decoder = decoder
    if strings is not None:
        search.filling = Redactor(strings)
        search.leaves_plain = decoder is not None
    return search


def filled(CredentialTerms terms not None, Head head not None, dict values not None):
    """Return which values the head needs, and the head with them. For tests."""
    return terms.needed_by_head(head), terms.filled_head(head, values)


def uploaded(CredentialTerms terms not None, Head head not None, dict values not None, pieces, bytes coding=None, bytes grpc=None):
    """Return what leaves of the pieces of a body, and whether it may go there to its end. For tests."""
    cdef UploadSearch search = new_upload_search(
        terms, terms.body_strings(head, values), decoder_for(coding, DECODED_AT_ONCE, True, True),
        None if grpc is None else new_grpc_parts(grpc, DECODED_AT_ONCE))
    cdef list out = []
    if search is None:
        return b"".join(pieces), True
    for piece in pieces:
        left = search.feed(piece)
        if left is None:
            return b"".join(out), False
        out.append(left)
    left = search.finish()
    return b"".join(out) + (left or b""), left is not None


def talked(CredentialTerms terms not None, dict values not None, bytes payload not None, bint from_client, bint is_text=True,
           bint is_close=False, counted=None):
    """Return the payload of a message as it leaves, None if it may not go there. For tests."""
    cdef MessageTerms messages = terms.message_terms(values, counted)
    if messages is None:
        return payload
    if is_close:
        return messages.close_without_values(payload)
    if not from_client:
        return messages.without_values(payload, is_text)
    if messages.forbids(payload):
        return None
    return messages.with_values(payload) if is_text else payload


def forbids(CredentialTerms terms not None, data not None):
    """Tell whether something in `data`, bytes or a head, may not go that way. For tests."""
    return terms.forbids_head(data) if isinstance(data, Head) else terms.forbids(data)
