"""One TLS engine over two memory BIOs, sans-IO."""

import ssl

cimport cython

from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.ref cimport Py_DECREF, PyObject

from soth_mitm._dataplane.memory.buffer cimport Arena, Buffer
from soth_mitm._dataplane.transport.states cimport (
    TLS_END,
    TLS_FAIL,
    TLS_SECURE,
    TLS_SHUT_OURS,
    TlsInput,
    TlsState,
    next_tls_state,
)

WANT_READ = ssl.SSLWantReadError
SSL_ERROR = ssl.SSLError


@cython.final
cdef class TlsEngine:
    """TLS over memory. `context` is an ``ssl.SSLContext``. A client checks the peer's certificate
    against `server_hostname`, which it needs; `session` is an ``ssl.SSLSession`` to resume.
    """

    def __cinit__(self, Arena arena not None, context, bint server_side, server_hostname=None,
                  session=None):
        self.arena = arena
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.feed_bio = self.incoming.write
        self.take_bio = self.outgoing.read
        self.ssl_object = context.wrap_bio(
            self.incoming, self.outgoing, server_side, server_hostname, session)
        # the object below the Python wrapper saves a Python call for each read and write
        inner = getattr(self.ssl_object, "_sslobj", self.ssl_object)
        self.ssl_read = inner.read
        self.ssl_write = inner.write
        self.ssl_pending = inner.pending
        self.do_handshake = inner.do_handshake
        self.engine = inner
        self.server_side = server_side
        self.pending_input = Buffer(arena)

    cdef int move(self, TlsInput event) except -1:
        cdef int state = next_tls_state(self.state, event)
        if state < 0:
            raise AssertionError(f"a TLS engine in state {self.state} has no input {event}")
        self.state = <TlsState>state
        return 0

    def agreed(self):
        """Return what the handshake agreed on: version, cipher suite, ALPN protocol, was a session
        resumed.
        """
        cipher = self.engine.cipher()
        suite, resumed = cipher[0] if cipher else None, bool(self.engine.session_reused)
        return self.version, suite, self.engine.selected_alpn_protocol(), resumed

    cdef int feed(self, const char* data, Py_ssize_t length) except -1:
        self.retain_input()
        self.borrowed = data
        self.borrowed_len = length
        return 0

    cdef int retain_input(self) except -1:
        if self.borrowed_len:
            self.pending_input.append_exact(self.borrowed, self.borrowed_len)
            self.borrowed_len = 0
        return 0

    cdef int forget(self) except -1:
        self.borrowed_len = 0
        self.pending_input.drop()
        return 0

    cdef bint has_unread(self) except -1:
        if not self.may_read():
            return False
        if self.borrowed_len or self.pending_input.size():
            return True
        if <Py_ssize_t>self.incoming.pending > self.partial:
            return True
        return self.maybe_pending and <bint>self.ssl_pending()

    cdef bint work_limit_reached(self) except -1:
        cdef Py_ssize_t unread
        # A record costs the same whether it carries one byte or 16 KiB; a session ticket or a key
        # update costs many times that. So ciphertext is counted, without what the engine has not
        # looked at yet.
        if self.unproductive <= UNPRODUCTIVE_LIMIT:
            return False
        unread = <Py_ssize_t>self.incoming.pending + <Py_ssize_t>self.ssl_pending()
        return self.unproductive - unread > UNPRODUCTIVE_LIMIT

    cdef int top_up(self) except -1:
        # no further than to the end of a record that is longer than what was left of the slice
        cdef Py_ssize_t slice = self.record_left if self.record_left else <Py_ssize_t>FEED_SLICE
        cdef Py_ssize_t length = min(self.pending_input.size(), slice)
        if length:
            self.track(self.pending_input.data(), length)
            self.feed_bio(self.arena.window.over(<char*>self.pending_input.data(), length))
            self.pending_input.consume(length)
            self.unproductive += length
            return 1
        length = min(self.borrowed_len, slice)
        if length:
            self.track(self.borrowed, length)
            self.feed_bio(self.arena.window.over(<char*>self.borrowed, length))
            self.borrowed += length
            self.borrowed_len -= length
            self.unproductive += length
            return 1
        return 0

    cdef bint has_record(self) except -1:
        if self.needs_input and not self.top_up():
            return False
        self.needs_input = False
        # bytes in the BIO beyond the incomplete record mean that a whole one waits there
        while <Py_ssize_t>self.incoming.pending <= self.partial:
            if not self.top_up():
                self.needs_input = True
                return False
        return True

    cdef void track(self, const char* data, Py_ssize_t length) noexcept nogil:
        # RFC 8446 section 5.1: type (1), version (2), length (2), body
        cdef Py_ssize_t step
        while length:
            if self.record_left:
                step = min(self.record_left, length)
                self.record_left -= step
                self.partial += step
                if self.record_left == 0:
                    self.partial = 0
                    self.header_len = 0
            else:
                step = 1
                self.header[self.header_len] = <unsigned char>data[0]
                self.header_len += 1
                self.partial += 1
                if self.header_len == 5:
                    self.record_left = (self.header[3] << 8) | self.header[4]
                    if self.record_left == 0:
                        self.partial = 0
                        self.header_len = 0
            data += step
            length -= step

    cdef int handshake(self) except -1:
        cdef PyObject* done
        while not self.is_secured():
            self.top_up()
            done = PyObject_CallNoArgs(self.do_handshake)
            if done == NULL:
                # every handshake waits for the peer; an `except` would build a traceback each time
                if not PyErr_ExceptionMatches(WANT_READ):
                    self.move(TLS_FAIL)
                    return -1
                PyErr_Clear()
                if self.outgoing.pending > CERTIFICATE_FLIGHT:
                    self.has_shown = True
                if not self.borrowed_len and not self.pending_input.size():
                    return 0
                continue
            Py_DECREF(<object>done)
            self.move(TLS_SECURE)
            self.unproductive = 0
            self.version = self.engine.version()
            # the last flight of a TLS 1.3 server is a session ticket, which the client does not
            # need now
            self.defer_output = self.server_side and self.version == "TLSv1.3"
        return 1

    cdef Py_ssize_t read_into(self, Buffer target) except -1:
        cdef Py_ssize_t total = 0, room, count
        while self.may_read() and not self.work_limit_reached():
            if total and target.room() == 0:
                break
            if self.maybe_pending:
                self.maybe_pending = False
                if not <bint>self.ssl_pending() and not self.has_record():
                    break
            elif not self.has_record():
                break
            if total == 0:
                target.reserve(ROOM)
            room = target.room()
            try:
                count = self.ssl_read(room, self.arena.window.over(target.tail(), room))
            except WANT_READ:
                # a record without application data: a session ticket, a key update
                continue
            except ssl.SSLZeroReturnError:
                count = 0
            except SSL_ERROR:
                self.move(TLS_FAIL)
                raise
            if count == 0:
                self.move(TLS_END)
                break
            target.commit(count)
            total += count
            # a record of two hundred bytes makes up for its cost
            self.unproductive = max(self.unproductive - count - count // 8, 0)
            self.maybe_pending = count == room
        return total

    cdef int write(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t count
        self.defer_output = False
        while length:
            count = self.ssl_write(
                self.arena.window.over(<char*>data, min(length, <Py_ssize_t>WRITE_SLICE)))
            data += count
            length -= count
            if length:
                if self.slices is None:
                    self.slices = []
                self.slices.append(self.take_bio())
        return 0

    cdef object take(self):
        cdef list slices = self.slices
        if self.defer_output:
            return None
        if not self.outgoing.pending:
            self.slices = None
            return slices
        if slices is None:
            return self.take_bio()
        self.slices = None
        slices.append(self.take_bio())
        return slices

    cdef int shut(self) except -1:
        # unwrap() also looks for the peer's close_notify, and fails for good when it finds
        # application data: so the unread ciphertext is taken out of the BIO meanwhile
        self.move(TLS_SHUT_OURS)
        self.defer_output = False
        unread = self.incoming.read()
        try:
            self.ssl_object.unwrap()
        except WANT_READ:
            pass
        except SSL_ERROR:
            # after a fatal alert there is no close_notify
            pass
        finally:
            self.incoming.write(unread)
        return 0
