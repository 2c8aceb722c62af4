"""A message head: its bytes, where everything in them lies, and what the proxy acts upon.

A parser fills it in: it enters each field into the table, lets `gather` read what the field says, and in
the end lets `check` judge all fields together. These are the rules that RFC 9110 and RFC 9112 do not demand,
because two readers could see two messages or two hosts:

- Host is present exactly once, but at most once in HTTP/1.0; it is valid and never empty
- Transfer-Encoding is ``chunked`` alone, not in HTTP/1.0, and never beside Content-Length

A field that `Connection` names stops here, except those that say where a message ends, where it goes, what
it is or how it is asked for (see `fields.pyx`): a peer must not be able to change a message by naming them.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from soth_mitm._dataplane.wire.fields cimport ConnectionOptions, read_connection, read_content_length
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower, soth_parse_authority
from soth_mitm._dataplane.wire.target cimport same_authority
from soth_mitm._dataplane.memory.view cimport view_bytes, view_of


cdef str fact_error_text(int error):
    if error == ERROR_HOST_MISSING:
        return "Host is missing"
    if error == ERROR_HOST_TWICE:
        return "Host is there more than once"
    if error == ERROR_HOST:
        return "Host is not a valid host and port"
    if error == ERROR_CODING:
        return "Transfer-Encoding is something else than `chunked`"
    if error == ERROR_CODING_TWICE:
        return "Transfer-Encoding is there more than once"
    if error == ERROR_CODING_VERSION:
        return "Transfer-Encoding stands in an HTTP/1.0 message"
    if error == ERROR_CODING_AND_LENGTH:
        return "Transfer-Encoding and Content-Length are both there"
    return None


cdef str version_text(int version):
    if version == HTTP_2:
        return "HTTP/2"
    return "HTTP/1.1" if version == HTTP_1_1 else "HTTP/1.0"


cdef str _host_value(Head head):
    if head.host < 0:
        return None
    return view_bytes(head.span(head.fields[head.host].value, head.fields[head.host].value_len)).decode("ascii")


@cython.final
@cython.freelist(256)
cdef class Head:
    """One head. A parser made it; it is read-only."""

    def __cinit__(self):
        self.raw = b""
        self.version = HTTP_1_0
        self.content_length = -1
        self.host = -1
        self.fields = self.inline_fields
        self.room = INLINE_FIELDS

    def __dealloc__(self):
        if self.fields != self.inline_fields:
            free(self.fields)

    cdef int reserve(self, int count) noexcept nogil:
        cdef bint is_inline = self.fields == self.inline_fields
        cdef Field* fields
        if count <= self.room:
            return 0
        fields = <Field*>realloc(NULL if is_inline else self.fields, count * sizeof(Field))
        if fields == NULL:
            return -1
        if is_inline:
            memcpy(fields, self.fields, self.room * sizeof(Field))
        self.fields = fields
        self.room = count
        return 0

    cdef void forget_fields(self) noexcept nogil:
        self.error = 0
        self.count = 0
        self.content_length = -1
        self.length_repeated = self.chunked = self.expect_continue = self.has_hop = False
        self.connection_close = self.connection_keep_alive = self.connection_upgrade = False
        self.host = -1

    cdef int gather(self, const char* base, Field* field) noexcept nogil:
        cdef const char* value = base + field.value
        cdef unsigned int port
        if field.name == FIELD_HOST and self.is_request:
            if self.host >= 0:
                return ERROR_HOST_TWICE
            self.host = self.count
            return 0 if soth_parse_authority(value, field.value_len, &port) else ERROR_HOST
        elif field.name == FIELD_CONTENT_LENGTH:
            return read_content_length(value, field.value_len, &self.content_length, &self.length_repeated)
        elif field.name == FIELD_TRANSFER_ENCODING:
            if self.chunked:
                return ERROR_CODING_TWICE
            if field.value_len != 7 or not soth_equals_lower(value, b"chunked", 7):
                return ERROR_CODING
            self.chunked = True
        elif field.name == FIELD_EXPECT:
            if field.value_len == 12 and soth_equals_lower(value, b"100-continue", 12):
                if self.version != HTTP_1_0:
                    self.expect_continue = True
                elif self.is_request:
                    # RFC 9110 section 10.1.1: an HTTP/1.0 client does not wait for 100. The request leaves
                    # without it.
                    field.hop = 1
                    self.has_hop = True
        elif field.name in (FIELD_CONNECTION, FIELD_HTTP2_SETTINGS, FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION,
                            FIELD_PROXY_AUTHORIZATION, FIELD_TE, FIELD_UPGRADE):
            field.hop = 1
            self.has_hop = True
        return 0

    cdef int check_host(self, const char* base) noexcept nogil:
        cdef Field* host
        if self.host < 0:
            return 0 if self.version == HTTP_1_0 else ERROR_HOST_MISSING
        if self.form == TARGET_ABSOLUTE:
            host = &self.fields[self.host]
            if not same_authority(base + self.authority, self.authority_len, base + host.value, host.value_len,
                                  443 if self.https else 80):
                return ERROR_HOST_DISAGREES
        return 0

    cdef int check(self, const char* base) noexcept nogil:
        cdef ConnectionOptions options
        cdef int error = 0
        if self.chunked:
            if self.version == HTTP_1_0:
                return ERROR_CODING_VERSION
            if self.content_length >= 0:
                return ERROR_CODING_AND_LENGTH
        if self.has_hop:
            error = read_connection(base, self.fields, self.count, &options)
            self.connection_close = options.close
            self.connection_keep_alive = options.keep_alive
            # RFC 9110 section 7.8: HTTP/1.0 has no upgrade
            self.connection_upgrade = options.upgrade and self.version == HTTP_1_1
        if self.is_request and error == 0:
            error = self.check_host(base)
        return error

    cdef const char* base(self) noexcept:
        return PyBytes_AS_STRING(self.raw)

    cdef View span(self, uint32_t offset, uint32_t length) noexcept:
        return view_of(PyBytes_AS_STRING(self.raw) + offset, length)

    cdef int find_known(self, int name) noexcept:
        cdef int i
        for i in range(self.count):
            if self.fields[i].name == name:
                return i
        return -1

    cdef int find(self, const char* name, Py_ssize_t length) noexcept:
        cdef const char* base = PyBytes_AS_STRING(self.raw)
        cdef int i
        for i in range(self.count):
            if self.fields[i].name_len == length and soth_equals_lower(base + self.fields[i].line, name, length):
                return i
        return -1

    cdef bint keeps_alive(self) noexcept:
        # Unlike section 9.3 we let an HTTP/1.0 client keep its connection: what it guards against, blind proxies that pass
        # `Connection: keep-alive` on, cannot happen here, where Connection stops.
        if self.connection_close:
            return False
        return self.version != HTTP_1_0 or self.connection_keep_alive

    cdef bytes origin_target(self):
        if self.form == TARGET_AUTHORITY:
            return b""
        if self.path_len == 0:
            # RFC 9112 section 3.2.4: an absolute-form of OPTIONS without a path means the server itself
            return b"*" if self.method == METHOD_OPTIONS else b"/"
        target = self.raw[self.path:self.path + self.path_len]
        return target if self.form != TARGET_ABSOLUTE or target[0] == c"/" else b"/" + target

    @property
    def version(self):
        """`"HTTP/1.0"`, `"HTTP/1.1"` or `"HTTP/2"`."""
        return version_text(self.version)

    @property
    def method(self):
        """The method as received, `""` on a response."""
        return self.raw[:self.method_len].decode("ascii")

    @property
    def target(self):
        """The request target as received, `""` on a response."""
        return self.raw[self.target:self.target + self.target_len].decode("ascii")

    @property
    def path(self):
        """The target in origin-form, query included; `"*"` for the server as a whole, `""` for CONNECT and responses."""
        return self.origin_target().decode("ascii") if self.is_request else ""

    @property
    def authority(self):
        """Host and port as the target (absolute-form, CONNECT) or else Host names them; None when nothing does."""
        if self.authority_len:
            return self.raw[self.authority:self.authority + self.authority_len].decode("ascii")
        return _host_value(self)

    @property
    def host(self):
        """The value of Host, None without one and on a response."""
        return _host_value(self)

    @property
    def reason(self):
        """The reason phrase of a response, often empty."""
        return self.raw[self.reason:self.reason + self.reason_len]

    @property
    def fields(self):
        """Names and values in order, as received."""
        return [
            (self.raw[field.line:field.line + field.name_len], self.raw[field.value:field.value + field.value_len])
            for field in self.fields[:self.count]
        ]

    @property
    def facts(self):
        """What the proxy itself acts upon, by name: for tests and tools."""
        return {
            "content_length": self.content_length, "chunked": bool(self.chunked), "expect_continue": bool(self.expect_continue),
            "upgrade": bool(self.connection_upgrade), "keeps_alive": bool(self.keeps_alive()),
        }

    def __repr__(self):
        if not self.raw:
            return "<Head, not parsed>"
        line = self.raw[:self.raw.index(b"\r\n")].decode("latin-1")
        return f"<Head {line!r}, {self.count} fields>"
