"""Put gRPC messages together from the bytes of a call, however DATA frames or reads cut them (PROTOCOL-HTTP2, "Length-Prefixed-Message").

A message whose compression flag is set is decoded by the call's ``grpc-encoding``. One that cannot be decoded is counted and not delivered:
its bytes would not be the message. A flag that is not known means that the position in the stream is lost, so framing stops.

gRPC-Web (PROTOCOL-WEB) has the same messages in both directions, in binary or in base64, and its trailers in a last frame of its own, which
is no message: its fields are kept.
"""

from urllib.parse import quote

import cython

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t

from soth_mitm._dataplane.wire.decode cimport Decoder, decoder_for
from soth_mitm._dataplane.wire.framer cimport Framer, append_bytes, only_bytes
from soth_mitm._dataplane.http.messages cimport StreamChunk, new_chunk

from soth_mitm._dataplane.http.messages import FrameKind

# RFC 9110 section 5.6.2
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# of HTTP, in gRPC's codes (http-grpc-status-mapping): what a client makes of a status without `grpc-status`
_STATUSES = {400: b"13", 401: b"16", 403: b"7", 404: b"12", 429: b"14", 502: b"14", 503: b"14", 504: b"14"}
_UNKNOWN = b"2"
# `grpc-message` is percent-encoded but for these (PROTOCOL-HTTP2, "Percent-Byte-Unencoded")
_UNENCODED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_LONGEST_MESSAGE = 1000


cdef list grpc_failure(int status, bytes text, list fields):
    """Return the fields of a response without content that tells a client of gRPC of `status` and `text`.

    With content the client may see the end of the stream before it has looked at the status, and report that. `fields` are those of the
    response; without the content, what they say of it is left out. None: they have a `grpc-status` of their own.
    """
    cdef list made = []
    cdef bytes name, lower, value
    for name, value in fields:
        lower = name.lower()
        if lower == b"grpc-status":
            return None
        if lower != b"grpc-message" and not lower.startswith(b"content-"):
            made.append((name, value))
    made.append((b"content-type", b"application/grpc"))
    made.append((b"grpc-status", _STATUSES.get(status, _UNKNOWN)))
    text = text[:_LONGEST_MESSAGE].decode("utf-8", "ignore").strip().encode()
    if text:
        made.append((b"grpc-message", quote(text, safe=_UNENCODED).encode()))
    return made


_MOST_OF_ONE = 0xFFFFFFFF


cdef bytes grpc_trailers(int status, bytes text):
    """Return field lines that end a call as a response with `status` would, each with its CRLF."""
    return b"".join([b"%b: %b\r\n" % (name, value) for name, value in grpc_failure(status, text, []) if name != b"content-type"])


cdef bytes grpc_trailers_frame(bytes lines):
    return bytes((TRAILERS,)) + len(lines).to_bytes(4, "big") + lines


cdef inline Py_ssize_t message_length(const char* prefix) noexcept nogil:
    cdef const uint8_t* byte = <const uint8_t*>prefix
    return (<Py_ssize_t>byte[1] << 24) | (<Py_ssize_t>byte[2] << 16) | (<Py_ssize_t>byte[3] << 8) | byte[4]


cdef inline int sextet(unsigned char digit) noexcept nogil:
    """Return the value of a digit of base64, -1 for any other byte."""
    if c"A" <= digit <= c"Z":
        return digit - c"A"
    if c"a" <= digit <= c"z":
        return digit - c"a" + 26
    if c"0" <= digit <= c"9":
        return digit - c"0" + 52
    if digit == c"+":
        return 62
    return 63 if digit == c"/" else -1


@cython.final
cdef class GrpcFramer(Framer):
    """Framer of one direction of a gRPC call; `encoding` is the value of its ``grpc-encoding`` header.

    `web`: gRPC-Web, whose `trailers` are there when their frame has come; `text`: that in base64.
    """

    def __cinit__(self, budget, bytes encoding=None, bint web=False, bint text=False):
        self.kind = FrameKind.GRPC_MESSAGE
        self.encoding = encoding
        self.web = web or text
        self.text = text
        self.held = bytearray()

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef bytes plain
        if not self.text or self.failed or length == 0:
            return self.feed_frames(data, length, out)
        plain = self.text_decoded(data, length)
        self.feed_frames(PyBytes_AS_STRING(plain), len(plain), out)
        if self.is_wrong and not self.failed:
            self.error_count += 1
            self.failed = True
        return length

    cdef bytes text_decoded(self, const char* data, Py_ssize_t length):
        """Decode base64 in groups of four; a group that is padded ends a piece, and the next one may follow it."""
        cdef bytes plain = PyBytes_FromStringAndSize(NULL, length // 4 * 3 + 3)
        cdef char* at = PyBytes_AS_STRING(plain)
        cdef Py_ssize_t place
        cdef int value, kept
        for place in range(length):
            value = sextet(data[place])
            if data[place] == c"=" and self.digits >= 2:
                self.padding += 1
                value = 0
            elif value < 0 or self.padding:
                self.is_wrong = True
                break
            self.bits = (self.bits << 6) | <uint32_t>value
            self.digits += 1
            if self.digits == 4:
                kept = 3 - self.padding
                at[0] = <char>(self.bits >> 16)
                if kept > 1:
                    at[1] = <char>(self.bits >> 8)
                if kept > 2:
                    at[2] = <char>self.bits
                at += kept
                self.bits = 0
                self.digits = self.padding = 0
        return plain[:at - PyBytes_AS_STRING(plain)]

    cdef bint is_known(self, int flags) noexcept:
        return self.trailers is None and (flags & ~(COMPRESSED | TRAILERS if self.web else COMPRESSED)) == 0

    cdef Py_ssize_t feed_frames(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef const char* begin = data
        cdef Py_ssize_t held, step
        cdef bint is_delivered = False
        self.at_border = False
        while length > 0 and not self.failed:
            if self.skip > 0:
                step = min(self.skip, length)
                self.skip -= step
                is_delivered = True
            elif PyByteArray_GET_SIZE(self.held) == 0 and not self.is_known(<uint8_t>data[0]):
                self.error_count += 1
                self.failed = True
                return data - begin
            elif PyByteArray_GET_SIZE(self.held) == 0 and length >= PREFIX and length >= self.wanted(data):
                # The usual case: the whole frame lies here
                step = self.wanted(data)
                self.deliver(data, step, out)
                is_delivered = True
            else:
                held = PyByteArray_GET_SIZE(self.held)
                step = min(length, (PREFIX if held < PREFIX else self.wanted(PyByteArray_AS_STRING(self.held))) - held)
                append_bytes(self.held, data, step)
                held += step
                if held >= PREFIX and held == self.wanted(PyByteArray_AS_STRING(self.held)):
                    self.deliver(PyByteArray_AS_STRING(self.held), held, out)
                    PyByteArray_Resize(self.held, 0)
                    is_delivered = True
            data += step
            length -= step
            if is_delivered and self.single:
                # of a message that is too long, more is still to be thrown away
                self.at_border = self.skip == 0
                break
        return data - begin

    cdef Py_ssize_t unfinished(self) noexcept:
        return PyByteArray_GET_SIZE(self.held)

    cdef int finish(self, list out) except -1:
        if not self.failed and (self.skip > 0 or self.digits > 0 or PyByteArray_GET_SIZE(self.held) > 0):
            self.error_count += 1
        return 0

    cdef Py_ssize_t wanted(self, const char* prefix) except -1:
        """Return how many bytes of the frame are kept, its prefix included."""
        return PREFIX + min(message_length(prefix), self.most)

    cdef int deliver(self, const char* frame, Py_ssize_t length, list out) except -1:
        """Deliver a message, of which `length` bytes, prefix included, are here; what it has beyond them will be skipped."""
        cdef bytes payload
        cdef Decoder decoder
        cdef bint truncated
        self.skip = PREFIX + message_length(frame) - length
        self.most = self.budget
        truncated = self.skip > 0
        payload = PyBytes_FromStringAndSize(frame + PREFIX, length - PREFIX)
        if <uint8_t>frame[0] & COMPRESSED:
            decoder = decoder_for(self.encoding, self.budget)
            if decoder is None:
                self.error_count += 1
                return 0
            payload = decoder.feed(payload)
            if decoder.error is None and not truncated:
                decoder.finish()
            if decoder.overflow:
                truncated = True
            elif decoder.error is not None:
                self.error_count += 1
                return 0
        if <uint8_t>frame[0] & TRAILERS:
            return self.keep_trailers(payload, truncated)
        out.append(new_chunk(payload, self.kind, truncated))
        return 0

    cdef int keep_trailers(self, bytes block, bint truncated) except -1:
        """Keep the fields of the trailers frame; of a frame that is too long, and of a line that is no field, nothing."""
        cdef list lines = []
        for line in [] if truncated else block.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name and not name.translate(None, _TOKEN) and b"\n" not in value and b"\r" not in value:
                lines.append(line + b"\r\n")
            elif line:
                self.error_count += 1
        self.error_count += truncated
        self.trailers = b"".join(lines)
        return 0

    # ---- for a filter

    cdef StreamChunk peek(self):
        cdef bytes payload = bytes(self.held[PREFIX:])
        cdef Decoder decoder
        if PyByteArray_GET_SIZE(self.held) > 0 and self.held[0] & COMPRESSED:
            decoder = decoder_for(self.encoding, self.budget)
            payload = b"" if decoder is None else decoder.feed(payload)
        return new_chunk(payload, self.kind, True)

    cdef bytes rewritten(self, bytes unit, tuple payloads):
        cdef list out = []
        for payload in only_bytes(payloads, "a message of gRPC"):
            if len(payload) > _MOST_OF_ONE:
                raise ValueError(f"replace: a message of gRPC has {_MOST_OF_ONE} bytes at most, got {len(payload)}")
            out.append(b"\0" + len(payload).to_bytes(4, "big"))
            out.append(payload)
        return b"".join(out)


cdef bytes grpc_message(int flags, bytes payload):
    return bytes((flags,)) + len(payload).to_bytes(4, "big") + payload


@cython.final
cdef class GrpcParts:
    """Cuts a stream of messages into what can be searched as it passes, and compressed messages, which cannot."""

    cdef list feed(self, bytes data):
        cdef list parts = []
        cdef Py_ssize_t at = 0, size = len(data), count
        while at < size:
            if self.left < 0:
                count = min(PREFIX - len(self.prefix), size - at)
                self.prefix += data[at:at + count]
                at += count
                if len(self.prefix) < PREFIX:
                    break
                self.left = message_length(PyBytes_AS_STRING(self.prefix))
                if self.prefix[0] & COMPRESSED:
                    if self.left > self.most:
                        self.error = f"a compressed message of gRPC is longer than {self.most} bytes"
                        return None
                    self.packed = bytearray(self.prefix)
                else:
                    parts.append((PART_PREFIX, self.prefix))
                self.prefix = b""
            else:
                count = min(self.left, <int64_t>(size - at))
                if self.packed is None:
                    parts.append((PART_CONTENT, data[at:at + count]))
                else:
                    self.packed += data[at:at + count]
                at += count
                self.left -= count
            if self.left == 0:
                if self.packed is None:
                    parts.append((PART_END, b""))
                else:
                    parts.append((PART_PACKED, bytes(self.packed)))
                    self.packed = None
                self.left = -1
        return parts

    cdef Py_ssize_t held(self) noexcept:
        return PyBytes_GET_SIZE(self.prefix) + (0 if self.packed is None else PyByteArray_GET_SIZE(self.packed))

    cdef bytes unpacked(self, bytes message):
        cdef Decoder decoder = decoder_for(self.encoding, self.most)
        cdef bytes content
        if decoder is None:
            self.error = "a message of gRPC is compressed, and the call names no grpc-encoding"
            return None
        content = decoder.feed(message[PREFIX:])
        decoder.finish()
        if decoder.error is not None:
            self.error = f"a message of gRPC: {decoder.error}"
            return None
        return content


cdef GrpcParts new_grpc_parts(bytes encoding, Py_ssize_t most):
    cdef GrpcParts parts = GrpcParts.__new__(GrpcParts)
    parts.encoding = encoding
    parts.most = most
    parts.prefix = b""
    parts.left = -1
    return parts
