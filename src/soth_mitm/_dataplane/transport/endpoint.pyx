"""One socket of the proxy: reads into an arena, runs TLS when asked to, tells its party, gathers writes, keeps back-pressure."""

import os
import socket
import ssl
import struct

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from soth_mitm._dataplane.memory.buffer cimport BLOCK_SIZE, SCRATCH_SIZE, Arena, Buffer
from soth_mitm._dataplane.memory.ledger cimport LEDGER_ENDPOINT, note
from soth_mitm._dataplane.memory.party cimport Party
from soth_mitm._dataplane.transport.tls_engine cimport TlsPump

SSL_ERROR = ssl.SSLError
# asyncio's own writelines() copies, and in some releases forgets to tell that its buffer is full (gh-127655)
_GATHERING_LOOPS = ("uvloop", "winloop")
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
        if type(transport).__module__.startswith(_GATHERING_LOOPS):
            self.write_all = transport.writelines
        self.shuts_socket = type(transport).__module__.startswith("asyncio.")
        # we are told of each byte that waits in the transport, and decide ourselves when it is too many
        transport.set_write_buffer_limits(0)
        note(LEDGER_ENDPOINT, 1)

    def get_buffer(self, sizehint):
        if self.tls is not None:
            return self.arena.window.over(self.arena.scratch, self.arena.budget.window(SCRATCH_SIZE))
        if self.inbox.base == NULL:
            return self.arena.window.over(self.arena.fresh_block(), self.arena.budget.window(BLOCK_SIZE))
        self.inbox.reserve(4096)
        return self.arena.window.over(self.inbox.tail(), self.arena.budget.window(self.inbox.room()))

    def buffer_updated(self, Py_ssize_t count):
        if self.gone or self.deaf:
            return
        if self.tls is None:
            if self.inbox.base == NULL:
                self.inbox.adopt_fresh()
            self.inbox.commit(count)
            self.bytes_in += count
            self.fresh = True
            self.deliver()
            return
        self.take_ciphertext(self.arena.scratch, count)

    cdef int take_ciphertext(self, const char* data, Py_ssize_t count) except -1:
        self.tls.feed(data, count)
        try:
            self.deliver()
        finally:
            if self.gone or self.deaf:
                self.tls.forget()
            else:
                self.tls.keep()
        return 0

    def eof_received(self):
        self.eof = True
        if self.told_end and not self.gone:
            self.party.left(self)
        self.deliver()
        return True

    def pause_writing(self):
        # put() and flush() see how much it is
        self.is_behind = True

    def resume_writing(self):
        self.is_behind = False
        self.arena.budget.give(self.unsent)
        self.unsent = 0
        if self.shuts_late:
            self.shuts_late = False
            self.shut_writing()
        if self.blocked:
            self.blocked = False
            self.party.writable(self, True)

    def connection_lost(self, error):
        self.gone = True
        self.closing = True
        note(LEDGER_ENDPOINT, -1)
        self.inbox.drop()
        self.outbox.drop()
        self.arena.budget.give(self.unsent)
        self.unsent = 0
        self.count_undecrypted(0)
        if self.tls is not None:
            self.tls.forget()
        try:
            if self.fault is None:
                self.fault = error
            self.party.lost(self, self.fault)
        finally:
            self.party = Party()
            self.transport = None
            self.write_out = None
            self.write_all = None

    # --- reading

    cdef int deliver(self) except -1:
        if self.delivering or self.waits_turn:
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
            if not self.gone and not self.held and not self.waits_turn and not self.told_end:
                self.tell_end()
        finally:
            self.delivering = False
        if self.inbox.size():
            if self.inbox.size() >= self.arena.max_buffer and not self.held:
                self.hold()
            if self.arena.budget.is_short():
                self.inbox.shrink()
        return 0

    cdef int deliver_tls(self) except -1:
        cdef Py_ssize_t count
        cdef bint toiled
        try:
            while not self.gone and not self.held and not self.deaf:
                if not self.tls.secured:
                    if not self.step_handshake():
                        return 0
                    continue
                count = self.tls.read_into(self.inbox)
                toiled = self.tls.has_toiled()
                if toiled:
                    self.wait_turn()
                if count:
                    self.bytes_in += count
                    self.party.received(self)
                if self.waits_turn or (count == 0 and not toiled):
                    break
                if self.inbox.size() >= self.arena.max_buffer:
                    break
        except SSL_ERROR as error:
            self.fail(error)
            return 0
        if self.inbox.size() == 0:
            self.inbox.drop()
        if not self.gone:
            # between reads there is at most a part of a record in the engine, unless we stopped before it was empty
            self.count_undecrypted(<Py_ssize_t>self.tls.incoming.pending if self.held or self.waits_turn else self.tls.partial)
            if self.tls.outgoing.pending:
                self.flush()
        return 0

    cdef int wait_turn(self) except -1:
        self.tls.fruitless = 0
        if self.arena.budget.call_soon is None or self.closing:
            return 0
        self.waits_turn = True
        if not self.held and not self.eof:
            # some loops read many times in a turn
            self.transport.pause_reading()
        self.arena.budget.call_soon(self.take_turn)
        return 0

    def take_turn(self):
        """Go on with the ciphertext for which one turn of the loop was too short. Called by the loop."""
        self.waits_turn = False
        if self.gone:
            return
        if not self.held and not self.eof and not self.closing:
            self.transport.resume_reading()
        self.deliver()

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
            if not self.eof and not self.closing and not self.waits_turn:
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
            if self.is_behind:
                self.count_unsent(length)
        else:
            self.tls.write(data, length)
        return 0

    cdef int count_unsent(self, Py_ssize_t length) except -1:
        self.unsent += length
        self.arena.budget.take(length)
        # a short answer does not keep its upstream until a slow client has read it; when memory is short it does
        if not self.blocked and (self.unsent > BLOCK_SIZE or self.arena.budget.is_short()):
            self.blocked = True
            return self.party.writable(self, False)
        return 0

    cdef void count_undecrypted(self, Py_ssize_t length) noexcept:
        if length > self.undecrypted:
            self.arena.budget.take(length - self.undecrypted)
        elif length < self.undecrypted:
            self.arena.budget.give(self.undecrypted - length)
        self.undecrypted = length

    cdef int flush(self) except -1:
        cdef object ciphertext
        if self.closing:
            return 0
        if self.outbox.size():
            self.put(self.outbox.data(), self.outbox.size())
            self.outbox.drop()
        if self.tls is not None:
            ciphertext = self.tls.take()
            if ciphertext is None:
                return 0
            if type(ciphertext) is bytes:
                self.write_out(ciphertext)
                if self.is_behind:
                    self.count_unsent(PyBytes_GET_SIZE(ciphertext))
            else:
                if self.write_all is None:
                    self.write_out(b"".join(ciphertext))
                else:
                    self.write_all(ciphertext)
                if self.is_behind:
                    self.count_unsent(sum(map(len, ciphertext)))
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
        if not self.shuts_socket:
            if self.transport.can_write_eof():
                self.transport.write_eof()
        elif self.is_behind:
            self.shuts_late = True
        else:
            self.shut_writing()
        return 0

    cdef int shut_writing(self) except -1:
        # asyncio's own write_eof() does the same, but its OSError for a peer that has gone reaches us, or nothing but the log
        if self.closing:
            return 0
        try:
            self.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        except OSError:
            # the loop sees it, too, and connection_lost() follows
            pass
        return 0

    # --- ending

    cdef int finish(self) except -1:
        if self.closing:
            return 0
        self.flush_last()
        self.closing = True
        self.transport.close()
        return 0

    cdef int finish_cut(self) except -1:
        if self.closing:
            return 0
        self.flush()
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
            self.tls.unhurried = False
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
            self.tls.feed(self.inbox.data(), self.inbox.size())
            self.tls.keep()
            self.bytes_in -= self.inbox.size()
            self.inbox.drop()
        self.fresh = False
        if self.held:
            # a full inbox has stopped the reading, and is empty now
            self.release()
        else:
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
