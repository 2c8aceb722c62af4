"""One socket of the proxy: reads into an arena, runs TLS when asked to, tells its party, gathers writes, keeps back-pressure."""

import os
import socket
import ssl
import struct

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from soth_mitm._dataplane.buffer cimport BLOCK_SIZE, SCRATCH_SIZE, Arena, Buffer
from soth_mitm._dataplane.ledger cimport LEDGER_ENDPOINT, note
from soth_mitm._dataplane.party cimport Party
from soth_mitm._dataplane.tls_pump cimport TlsPump

SSL_ERROR = ssl.SSLError
LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


# not final: the pool's connection derives from it, and proxy/ adds asyncio.BufferedProtocol, which the loops ask for by type
cdef class Endpoint:
    """One connection to one peer. All methods belong to the loop's thread."""

    def __cinit__(self, Arena arena not None, Party party not None):
        self.arena = arena
        self.party = party
        self.inbox = Buffer(arena)
        self.outbox = Buffer(arena)

    # --- what the loop calls

    def connection_made(self, transport):
        self.transport = transport
        self.write_out = transport.write
        note(LEDGER_ENDPOINT, 1)

    def get_buffer(self, sizehint):
        if self.tls is not None:
            return self.arena.window.over(self.arena.scratch, SCRATCH_SIZE)
        self.inbox.reserve(BLOCK_SIZE if self.inbox.size() == 0 else 4096)
        return self.arena.window.over(self.inbox.tail(), self.inbox.room())

    def buffer_updated(self, Py_ssize_t count):
        if self.gone or self.deaf:
            return
        if self.tls is None:
            self.inbox.commit(count)
            self.bytes_in += count
            self.fresh = True
        else:
            self.tls.feed(self.arena.scratch, count)
        self.deliver()

    def eof_received(self):
        self.eof = True
        self.deliver()
        return True

    def pause_writing(self):
        self.blocked = True
        self.party.writable(self, False)

    def resume_writing(self):
        self.blocked = False
        self.party.writable(self, True)

    def connection_lost(self, error):
        self.gone = True
        self.closing = True
        note(LEDGER_ENDPOINT, -1)
        self.inbox.drop()
        self.outbox.drop()
        try:
            if self.fault is None:
                self.fault = error
            self.party.lost(self, self.fault)
        finally:
            self.party = Party()
            self.transport = None
            self.write_out = None

    # --- reading

    cdef int deliver(self) except -1:
        if self.delivering:
            return 0
        self.delivering = True
        try:
            if self.deaf:
                pass
            elif self.tls is not None:
                self.deliver_tls()
            elif self.fresh and not self.held:
                self.fresh = False
                self.party.received(self)
                # a party may have started TLS on what it left in the inbox
                if self.tls is not None:
                    self.deliver_tls()
            if not self.gone and not self.held and not self.told_end:
                self.tell_end()
        finally:
            self.delivering = False
        if self.inbox.size() >= self.arena.max_buffer and not self.held:
            self.hold()
        return 0

    cdef int deliver_tls(self) except -1:
        cdef Py_ssize_t count
        try:
            while not self.gone and not self.held and not self.deaf:
                if not self.tls.secured:
                    if not self.step_handshake():
                        return 0
                    continue
                self.inbox.reserve(BLOCK_SIZE if self.inbox.size() == 0 else 16384)
                count = self.tls.read_into(self.inbox)
                if count == 0:
                    break
                self.bytes_in += count
                self.party.received(self)
                if self.inbox.size() >= self.arena.max_buffer:
                    break
        except SSL_ERROR as error:
            self.fail(error)
            return 0
        if self.inbox.size() == 0:
            self.inbox.drop()
        if not self.gone and self.tls.outgoing.pending:
            self.flush()
        return 0

    cdef int tell_end(self) except -1:
        if self.tls is not None and self.tls.ended:
            self.told_end = True
            self.party.ended(self, True)
        elif self.eof:
            self.told_end = True
            self.party.ended(self, self.tls is None)
        return 0

    cdef int hold(self) except -1:
        if not self.held and not self.gone:
            self.held = True
            if not self.eof and not self.closing:
                self.transport.pause_reading()
        return 0

    cdef int release(self) except -1:
        if self.held and not self.gone:
            self.held = False
            if not self.eof and not self.closing:
                self.transport.resume_reading()
            self.deliver()
        return 0

    # --- writing

    cdef int send(self, const char* data, Py_ssize_t length) except -1:
        if self.closing or length == 0:
            return 0
        self.bytes_out += length
        if self.outbox.size() + length <= GATHER_SIZE:
            return self.outbox.append(data, length)
        if self.outbox.size():
            self.put(self.outbox.data(), self.outbox.size())
            self.outbox.drop()
        if length < GATHER_SIZE:
            return self.outbox.append(data, length)
        return self.put(data, length)

    cdef int send_bytes(self, bytes data) except -1:
        return self.send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int put(self, const char* data, Py_ssize_t length) except -1:
        if self.tls is None:
            self.write_out(PyBytes_FromStringAndSize(data, length))
        else:
            self.tls.write(data, length)
        return 0

    cdef int flush(self) except -1:
        cdef bytes ciphertext
        if self.closing:
            return 0
        if self.outbox.size():
            self.put(self.outbox.data(), self.outbox.size())
            self.outbox.drop()
        if self.tls is not None:
            ciphertext = self.tls.take()
            if ciphertext is not None:
                self.write_out(ciphertext)
        return 0

    cdef int flush_last(self) except -1:
        self.flush()
        if self.tls is not None and self.tls.secured:
            self.tls.shut()
            self.flush()
        return 0

    cdef int end_writing(self) except -1:
        if self.closing:
            return 0
        self.flush_last()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        return 0

    # --- ending

    cdef int finish(self) except -1:
        if self.closing:
            return 0
        self.flush_last()
        self.closing = True
        self.transport.close()
        return 0

    cdef int fail(self, object error) except -1:
        if self.gone:
            return 0
        self.fault = error
        if self.tls is None:
            if error is not None:
                self.reset_on_close()
        elif not self.closing:
            # the alert that tells the peer why, if the engine made one
            self.flush()
        self.closing = True
        self.transport.abort()
        return 0

    cdef int reset_on_close(self) except -1:
        # without TLS a FIN would tell the peer that it has got everything
        try:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        except OSError:
            # the connection is gone already, which some systems say here
            pass
        return 0

    def close(self):
        """Close in order: close_notify, what is queued, FIN. `party.lost` follows."""
        self.arena.check_thread()
        if self.transport is not None:
            self.finish()

    def abort(self, error=None):
        """Cut the connection now. `party.lost` follows and is given `error`."""
        self.arena.check_thread()
        if self.transport is not None:
            self.fail(error)

    def write(self, bytes data not None):
        """Send `data` now, as plaintext. For the control plane, once in a connection's life."""
        self.arena.check_thread()
        self.send_bytes(data)
        self.flush()

    # --- TLS

    def start_tls(self, context, bint server_side, server_hostname=None, session=None):
        """Begin a handshake with what already lies in the inbox; the party's `secured` is told how it ended.

        `context` is an ``ssl.SSLContext``. Raises ``ssl.SSLError`` or ``ValueError`` when the engine cannot be made (a host name that is
        none, a session of another context).
        """
        self.arena.check_thread()
        self.tls = TlsPump(self.arena, context, server_side, server_hostname, session)
        if self.inbox.size():
            self.tls.feed(<char*>self.inbox.data(), self.inbox.size())
            self.bytes_in -= self.inbox.size()
            self.inbox.drop()
        self.fresh = False
        self.deliver()

    cdef int step_handshake(self) except -1:
        try:
            self.tls.handshake()
        except (SSL_ERROR, ValueError) as error:
            self.flush()
            self.party.secured(self, error)
            return 0
        self.flush()
        if self.tls.secured:
            self.party.secured(self, None)
            return 1
        return 0
