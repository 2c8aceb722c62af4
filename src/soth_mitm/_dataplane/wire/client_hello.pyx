"""The first message of a TLS client, read before anything is answered (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

Pure functions of bytes. What they are given is the start of the client's stream, whole: call again with more of it, not with the rest.
Values that are not understood, GREASE (RFC 8701) among them, are kept as they came.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy, memset

MAX_HELLO_BYTES = MAX_HELLO

cdef enum:
    RECORD_HEADER = 5
    RECORD_ALERT = 21
    RECORD_HANDSHAKE = 22
    ALERT_LENGTH = 2
    ALERT_WARNING = 1
    MAX_RECORD = 16384
    MESSAGE_HEADER = 4
    CLIENT_HELLO = 1
    MAX_NAME = 255

cdef enum:
    EXT_SERVER_NAME = 0
    EXT_SUPPORTED_GROUPS = 10
    EXT_EC_POINT_FORMATS = 11
    EXT_SIGNATURE_ALGORITHMS = 13
    EXT_ALPN = 16
    EXT_SUPPORTED_VERSIONS = 43
    EXT_ENCRYPTED_CLIENT_HELLO = 0xFE0D

# Alert descriptions, RFC 8446 section 6
cdef enum:
    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70


class MalformedHello(ValueError):
    """The client's first bytes are no ClientHello; `alert` is the description to send in a fatal alert.

    `is_hello` tells whether they begin one all the same, so that another server might read it.
    """

    def __init__(self, message, alert, is_hello=True):
        super().__init__(message)
        self.alert = alert
        self.is_hello = is_hello


cdef refusal(int error, uint32_t detail, bint is_hello):
    if error == HELLO_RECORD_TYPE:
        return MalformedHello(f"record of type {detail} where a ClientHello was due", UNEXPECTED_MESSAGE, is_hello)
    if error == HELLO_RECORD_VERSION:
        return MalformedHello(f"record version {detail}.x is not TLS", PROTOCOL_VERSION, is_hello)
    if error == HELLO_RECORD_LONG:
        return MalformedHello(f"record of {detail} bytes", RECORD_OVERFLOW, is_hello)
    if error == HELLO_RECORD_EMPTY:
        return MalformedHello("empty handshake record", UNEXPECTED_MESSAGE)
    if error == HELLO_SPREAD:
        return MalformedHello(f"ClientHello in records of more than {detail} bytes", DECODE_ERROR)
    if error == HELLO_MESSAGE_TYPE:
        return MalformedHello(f"handshake message of type {detail} where a ClientHello was due", UNEXPECTED_MESSAGE, is_hello)
    if error == HELLO_LONG:
        return MalformedHello(f"ClientHello of {detail} bytes; at most {MAX_HELLO_BYTES} are read, records included", DECODE_ERROR)
    if error == HELLO_PAST_END:
        return MalformedHello("a length in the ClientHello points past its end", DECODE_ERROR)
    if error == HELLO_VECTOR_SHORT:
        return MalformedHello(f"vector of {detail} bytes, fewer than it must have", DECODE_ERROR)
    if error == HELLO_ODD_LIST:
        return MalformedHello(f"list of {detail} bytes, not a multiple of 2", DECODE_ERROR)
    if error == HELLO_TRAILING:
        return MalformedHello(f"{detail} bytes too many in the ClientHello", DECODE_ERROR)
    if error == HELLO_TRAILING_EXTENSION:
        return MalformedHello(f"bytes too many in extension {detail}", DECODE_ERROR)
    if error == HELLO_TRAILING_NAME:
        return MalformedHello(f"{detail} bytes too many in server_name", DECODE_ERROR)
    if error == HELLO_TRAILING_ALPN:
        return MalformedHello(f"{detail} bytes too many in ALPN", DECODE_ERROR)
    if error == HELLO_SESSION_ID:
        return MalformedHello(f"session id of {detail} bytes", DECODE_ERROR)
    if error == HELLO_EXTENSION_TWICE:
        return MalformedHello(f"extension {detail} sent twice", ILLEGAL_PARAMETER)
    if error == HELLO_NAMES:
        return MalformedHello("server_name with another name than one host name", ILLEGAL_PARAMETER)
    return MalformedHello(f"server_name of {detail} bytes is not a host name", ILLEGAL_PARAMETER)


@cython.final
cdef class ClientHello:
    """What a client offers, in the order it was sent; numbers are the registry's code points.

    `versions` is supported_versions, `()` from clients before TLS 1.3. `sni` is in lower case, without trailing dot. `alpn` maps bytes to
    characters one to one (Latin-1). With `has_ech`, `sni` is the outer name. `raw_length` counts the bytes from the first record header to
    the end of the record in which the hello ends.
    """

    cdef const uint8_t* at(self, Part part) noexcept:
        return <const uint8_t*>PyBytes_AS_STRING(self.message) + part.at

    @property
    def legacy_version(self):
        """The version in the message's first two bytes; 0x0303 from clients of TLS 1.3."""
        return self.parts.legacy_version

    @property
    def session_id_length(self):
        """Length of the session id in bytes, 0 to 32."""
        return self.parts.session_id_length

    @property
    def has_ech(self):
        """Whether the hello carries encrypted_client_hello, real or GREASE."""
        return bool(self.parts.has_ech)

    @property
    def ciphers(self):
        """The cipher suites."""
        return numbers(self.at(self.parts.ciphers), self.parts.ciphers.len)

    @property
    def versions(self):
        """The supported_versions."""
        return numbers(self.at(self.parts.versions), self.parts.versions.len)

    @property
    def groups(self):
        """The supported_groups."""
        return numbers(self.at(self.parts.groups), self.parts.groups.len)

    @property
    def signature_algorithms(self):
        """The signature_algorithms."""
        return numbers(self.at(self.parts.signature_algorithms), self.parts.signature_algorithms.len)

    @property
    def point_formats(self):
        """The ec_point_formats."""
        return tuple(self.at(self.parts.point_formats)[:self.parts.point_formats.len])

    @property
    def extensions(self):
        """The codes of all extensions."""
        cdef const uint8_t* data = self.at(self.parts.extensions)
        cdef uint32_t at = 0
        cdef list codes = []
        while at < self.parts.extensions.len:
            codes.append(number_at(data + at))
            at += 4 + number_at(data + at + 2)
        return tuple(codes)

    @property
    def alpn(self):
        """The protocol names."""
        cdef const uint8_t* data = self.at(self.parts.alpn)
        cdef uint32_t at = 0
        cdef list names = []
        while at < self.parts.alpn.len:
            names.append(PyBytes_FromStringAndSize(<const char*>data + at + 1, data[at]).decode("latin-1"))
            at += 1 + data[at]
        return tuple(names)

    @property
    def first_alpn(self):
        """The first of `alpn` as bytes, empty when there is none."""
        cdef const uint8_t* data = self.at(self.parts.alpn)
        return PyBytes_FromStringAndSize(<const char*>data + 1, data[0]) if self.parts.alpn.len else b""

    @property
    def sni(self):
        """The name of server_name, None when there is none."""
        cdef Part name = self.parts.server_name
        if name.len == 0:
            return None
        return PyBytes_FromStringAndSize(<const char*>self.at(name), name.len).decode("ascii").lower().removesuffix(".") or None

    def __eq__(self, other):
        return (isinstance(other, ClientHello) and self.message == (<ClientHello>other).message
                and self.raw_length == (<ClientHello>other).raw_length)

    def __hash__(self):
        return hash(self.message)

    def __repr__(self):
        return f"<ClientHello for {self.sni}, {self.parts.ciphers.len // 2} cipher suites, ALPN {','.join(self.alpn) or 'none'}>"


def read_client_hello(const uint8_t[::1] data not None, bint lenient=False):
    """Reassemble and parse the ClientHello at the start of `data`; what follows it is not looked at. None: more is needed.

    Raises `MalformedHello` as soon as no continuation could be a ClientHello of at most `MAX_HELLO_BYTES`. With `lenient`, versions of
    records, empty records and warnings before the hello make no difference, as to some servers.
    """
    cdef ClientHello hello
    cdef Walk walk
    if data.shape[0] == 0:
        return None
    memset(&walk, 0, sizeof(walk))
    walk.lenient = lenient
    find_message(&data[0], data.shape[0], &walk)
    if walk.error != HELLO_GOOD:
        raise refusal(walk.error, walk.detail, walk.seen > 0 and walk.header[0] == CLIENT_HELLO)
    if walk.raw_length == 0:
        return None
    hello = ClientHello.__new__(ClientHello)
    hello.raw_length = walk.raw_length
    hello.message = PyBytes_FromStringAndSize(NULL, walk.total)
    join_message(&data[0], walk.total, <uint8_t*>PyBytes_AS_STRING(hello.message))
    parse_message(<const uint8_t*>PyBytes_AS_STRING(hello.message), <uint32_t>PyBytes_GET_SIZE(hello.message), &hello.parts)
    if hello.parts.error != HELLO_GOOD:
        raise refusal(hello.parts.error, hello.parts.detail, True)
    return hello


cdef tuple numbers(const uint8_t* data, uint32_t length):
    cdef uint32_t at
    cdef list found = []
    for at in range(0, length, 2):
        found.append(number_at(data + at))
    return tuple(found)


# --- records

cdef struct Walk:
    bint lenient
    Py_ssize_t raw_length      # 0 while the message is not whole
    uint32_t total             # length of the message without its header
    uint32_t seen              # bytes of the message, its header included
    uint8_t[MESSAGE_HEADER] header
    int error                  # HelloError
    uint32_t detail


cdef int spoil(Walk* walk, int error, Py_ssize_t detail) noexcept nogil:
    walk.error = error
    walk.detail = <uint32_t>detail
    return 0


cdef int find_message(const uint8_t* data, Py_ssize_t size, Walk* walk) noexcept nogil:
    """Walk the records."""
    cdef Py_ssize_t at = 0, length, here, step, i
    cdef bint is_warning
    while at + RECORD_HEADER <= MAX_HELLO:
        is_warning = walk.lenient and walk.seen == 0 and at < size and data[at] == RECORD_ALERT
        if at < size and data[at] != RECORD_HANDSHAKE and not is_warning:
            return spoil(walk, HELLO_RECORD_TYPE, data[at])
        # some look no closer than this
        if at + 1 < size and (data[at + 1] >= 0x10 if walk.lenient else data[at + 1] != 3):
            return spoil(walk, HELLO_RECORD_VERSION, data[at + 1])
        if at + RECORD_HEADER > size:
            return 0
        length = number_at(data + at + 3)
        if length > MAX_RECORD:
            return spoil(walk, HELLO_RECORD_LONG, length)
        if length == 0 and not walk.lenient:
            return spoil(walk, HELLO_RECORD_EMPTY, 0)
        at += RECORD_HEADER
        if at + length > MAX_HELLO:
            break
        if is_warning:
            if length != ALERT_LENGTH or (at < size and data[at] != ALERT_WARNING):
                return spoil(walk, HELLO_RECORD_TYPE, RECORD_ALERT)
            if at + length > size:
                return 0
            at += length
            continue
        here = min(length, size - at)
        step = min(here, <Py_ssize_t>MESSAGE_HEADER - min(<Py_ssize_t>walk.seen, <Py_ssize_t>MESSAGE_HEADER))
        for i in range(step):
            walk.header[walk.seen + i] = data[at + i]
        walk.seen += <uint32_t>here
        if walk.seen and walk.header[0] != CLIENT_HELLO:
            return spoil(walk, HELLO_MESSAGE_TYPE, walk.header[0])
        if walk.seen >= MESSAGE_HEADER:
            walk.total = (<uint32_t>walk.header[1] << 16) | (<uint32_t>walk.header[2] << 8) | walk.header[3]
            if walk.total > MAX_HELLO - RECORD_HEADER - MESSAGE_HEADER:
                return spoil(walk, HELLO_LONG, walk.total)
        if here < length:
            return 0
        at += length
        if walk.seen >= MESSAGE_HEADER and walk.seen - MESSAGE_HEADER >= walk.total:
            walk.raw_length = at
            return 0
    return spoil(walk, HELLO_SPREAD, MAX_HELLO)


cdef void join_message(const uint8_t* data, uint32_t total, uint8_t* target) noexcept nogil:
    """Copy the message without its header out of records that `find_message` has walked."""
    cdef uint32_t skip = MESSAGE_HEADER, done = 0, length, step
    while done < total:
        length = number_at(data + 3)
        data += RECORD_HEADER
        if data[-RECORD_HEADER] == RECORD_HANDSHAKE:
            step = min(skip, length)
            skip -= step
            memcpy(target + done, data + step, min(length - step, total - done))
            done += min(length - step, total - done)
        data += length


# --- the message

cdef struct Cursor:
    const uint8_t* data
    uint32_t at
    uint32_t end
    HelloParts* parts


cdef inline Cursor cursor_of(const uint8_t* data, Part part, HelloParts* parts) noexcept nogil:
    cdef Cursor cursor
    cursor.data = data
    cursor.at = part.at
    cursor.end = part.at + part.len
    cursor.parts = parts
    return cursor


cdef int refuse(Cursor* cursor, int error, uint32_t detail) noexcept nogil:
    # what is read after the first error is not looked at, and the cursor stands at its end
    if cursor.parts.error == HELLO_GOOD:
        cursor.parts.error = error
        cursor.parts.detail = detail
    cursor.at = cursor.end
    return 0


cdef int skip(Cursor* cursor, uint32_t size) noexcept nogil:
    """Step over `size` bytes; 1 when they are there."""
    if size > cursor.end - cursor.at:
        return refuse(cursor, HELLO_PAST_END, 0)
    cursor.at += size
    return 1


cdef uint32_t number(Cursor* cursor, int size) noexcept nogil:
    cdef uint32_t value = 0
    cdef int i
    if skip(cursor, size):
        for i in range(size):
            value = (value << 8) | cursor.data[cursor.at - size + i]
    return value


cdef Part vector(Cursor* cursor, int length_size, uint32_t minimum) noexcept nogil:
    """Take the vector that begins here with a length of `length_size` bytes."""
    cdef Part part
    part.len = number(cursor, length_size)
    part.at = cursor.at
    if cursor.parts.error == HELLO_GOOD and part.len < minimum:
        refuse(cursor, HELLO_VECTOR_SHORT, part.len)
    elif not skip(cursor, part.len):
        part.len = 0
    return part


cdef Part even_vector(Cursor* cursor, int length_size) noexcept nogil:
    cdef Part part = vector(cursor, length_size, 2)
    if part.len & 1:
        refuse(cursor, HELLO_ODD_LIST, part.len)
    return part


cdef void finish(Cursor* cursor, int error, uint32_t detail) noexcept nogil:
    if cursor.at != cursor.end:
        refuse(cursor, error, detail if detail else cursor.end - cursor.at)


cdef void parse_message(const uint8_t* data, uint32_t size, HelloParts* parts) noexcept nogil:
    cdef Cursor body
    cdef Part whole
    memset(parts, 0, sizeof(HelloParts))
    whole.at = 0
    whole.len = size
    body = cursor_of(data, whole, parts)
    parts.legacy_version = <uint16_t>number(&body, 2)
    skip(&body, 32)
    parts.session_id_length = <uint8_t>number(&body, 1)
    if parts.session_id_length > 32:
        refuse(&body, HELLO_SESSION_ID, parts.session_id_length)
    skip(&body, parts.session_id_length)
    parts.ciphers = even_vector(&body, 2)
    vector(&body, 1, 1)
    # TLS 1.2 and older may end here
    if body.at < body.end:
        parts.extensions = vector(&body, 2, 0)
        finish(&body, HELLO_TRAILING, 0)
    if parts.error == HELLO_GOOD:
        parse_extensions(data, parts)


cdef void parse_extensions(const uint8_t* data, HelloParts* parts) noexcept nogil:
    cdef Cursor listed = cursor_of(data, parts.extensions, parts)
    cdef Cursor extension
    cdef uint8_t[8192] seen               # a bit for each code
    cdef uint32_t code
    cdef Part part
    memset(seen, 0, sizeof(seen))
    while listed.at < listed.end and parts.error == HELLO_GOOD:
        code = number(&listed, 2)
        if seen[code >> 3] & (1 << (code & 7)):
            refuse(&listed, HELLO_EXTENSION_TWICE, code)
            return
        seen[code >> 3] |= 1 << (code & 7)
        part = vector(&listed, 2, 0)
        if parts.error != HELLO_GOOD:
            return
        extension = cursor_of(data, part, parts)
        if code == EXT_SERVER_NAME:
            parse_server_name(&extension)
        elif code == EXT_ALPN:
            parse_alpn(&extension)
        elif code == EXT_SUPPORTED_VERSIONS:
            parts.versions = even_vector(&extension, 1)
            finish(&extension, HELLO_TRAILING_EXTENSION, code)
        elif code == EXT_SUPPORTED_GROUPS:
            parts.groups = even_vector(&extension, 2)
            finish(&extension, HELLO_TRAILING_EXTENSION, code)
        elif code == EXT_SIGNATURE_ALGORITHMS:
            parts.signature_algorithms = even_vector(&extension, 2)
            finish(&extension, HELLO_TRAILING_EXTENSION, code)
        elif code == EXT_EC_POINT_FORMATS:
            parts.point_formats = vector(&extension, 1, 1)
            finish(&extension, HELLO_TRAILING_EXTENSION, code)
        elif code == EXT_ENCRYPTED_CLIENT_HELLO:
            parts.has_ech = True


cdef bint is_name_byte(uint8_t byte) noexcept nogil:
    # Not a full check of host names: what could not be logged, compared with a policy or put into a certificate is refused
    return (c"a" <= byte <= c"z" or c"A" <= byte <= c"Z" or c"0" <= byte <= c"9" or byte == c"." or byte == c"-" or byte == c"_"
            or byte == c":")


cdef void parse_server_name(Cursor* extension) noexcept nogil:
    """Read server_name (RFC 6066 section 3): one name of type host_name. Servers differ in what they do with other lists."""
    cdef Part listed = vector(extension, 2, 1), name
    cdef Cursor names
    cdef uint32_t i
    finish(extension, HELLO_TRAILING_NAME, 0)
    if extension.parts.error != HELLO_GOOD:
        return
    names = cursor_of(extension.data, listed, extension.parts)
    if number(&names, 1) != 0:
        refuse(&names, HELLO_NAMES, 0)
        return
    name = vector(&names, 2, 1)
    if extension.parts.error != HELLO_GOOD:
        return
    if names.at != names.end:
        refuse(&names, HELLO_NAMES, 0)
        return
    if name.len > MAX_NAME:
        refuse(&names, HELLO_NAME, name.len)
        return
    for i in range(name.len):
        if not is_name_byte(names.data[name.at + i]):
            refuse(&names, HELLO_NAME, name.len)
            return
    extension.parts.server_name = name


cdef void parse_alpn(Cursor* extension) noexcept nogil:
    """Read the ALPN list (RFC 7301 section 3.1); names are opaque bytes, GREASE ones included."""
    cdef Part listed = vector(extension, 2, 2)
    cdef Cursor names
    finish(extension, HELLO_TRAILING_ALPN, 0)
    names = cursor_of(extension.data, listed, extension.parts)
    while names.at < names.end and extension.parts.error == HELLO_GOOD:
        vector(&names, 1, 1)
    extension.parts.alpn = listed
