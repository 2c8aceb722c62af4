"""One socket of the proxy: reads into an arena, runs TLS, calls its callbacks, gathers writes,
applies back-pressure.
"""

import os
import socket
import ssl
import struct

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from soth_mitm._dataplane.memory.buffer cimport BLOCK_SIZE, SCRATCH_SIZE, Arena, Buffer
from soth_mitm._dataplane.memory.ledger cimport LEDGER_ENDPOINT, note
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_BUFFER_FULL, EndpointCallbacks
from soth_mitm._dataplane.transport.states cimport (
    BACKLOG_DRAIN,
    BACKLOG_FILL,
    BACKLOG_HOLD,
    ENDPOINT_CLOSE,
    ENDPOINT_END,
    ENDPOINT_END_LATER,
    ENDPOINT_ENDING,
    ENDPOINT_LOST,
    ENDPOINT_MADE,
    ENDPOINT_OPEN,
    READING_GET_FIN,
    READING_TELL,
    BacklogInput,
    BacklogState,
    EndpointInput,
    EndpointState,
    ReadingInput,
    ReadingState,
    next_backlog_state,
    next_endpoint_state,
    next_reading_state,
)
from soth_mitm._dataplane.transport.tls_engine cimport TlsEngine

SSL_ERROR = ssl.SSLError
# asyncio's writelines() copies, and some releases do not report a full buffer (gh-127655)
_GATHERING_LOOPS = ("uvloop", "winloop")
LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


# not final: the pool's connection derives from it, and proxy/ adds asyncio.BufferedProtocol, a type
# that loops require
cdef class Endpoint:
    """One connection to one peer. All methods belong to the loop's thread."""

    def __cinit__(self, Arena arena not None, EndpointCallbacks callbacks not None):
        self.arena = arena
        self.callbacks = callbacks
        self.read_buffer = Buffer(arena)
        self.write_buffer = Buffer(arena)

    cdef int move(self, EndpointInput event) except -1:
        cdef int state = next_endpoint_state(self.state, event)
        if state < 0:
            raise AssertionError(f"an endpoint in state {self.state} has no input {event}")
        self.state = <EndpointState>state
        return 0

    cdef int move_reading(self, ReadingInput event) except -1:
        cdef int state = next_reading_state(self.reading, event)
        if state < 0:
            raise AssertionError(f"reading in state {self.reading} has no input {event}")
        self.reading = <ReadingState>state
        return 0

    cdef int move_backlog(self, BacklogInput event) except -1:
        cdef int state = next_backlog_state(self.backlog, event)
        if state < 0:
            raise AssertionError(f"a backlog in state {self.backlog} has no input {event}")
        self.backlog = <BacklogState>state
        return 0

    # for Python only: Cython asks is_gone() and has_told_eof(), which cost nothing

    @property
    def gone(self):
        """Whether the connection is gone, and `callbacks.on_closed` was called."""
        return self.is_gone()

    @property
    def eof_delivered(self):
        """Whether `callbacks.on_eof` was called."""
        return self.has_told_eof()

    # --- what the loop calls

    def connection_made(self, transport):
        self.move(ENDPOINT_MADE)
        self.transport = transport
        self.write_out = transport.write
        if type(transport).__module__.startswith(_GATHERING_LOOPS):
            self.write_all = transport.writelines
        self.shuts_socket = type(transport).__module__.startswith("asyncio.")
        # the transport reports every unsent byte; count_unsent() decides when they are too many
        transport.set_write_buffer_limits(0)
        note(LEDGER_ENDPOINT, 1)

    def get_buffer(self, sizehint):
        cdef Arena arena = self.arena
        if self.tls is not None:
            return arena.window.over(arena.scratch, arena.budget.window(SCRATCH_SIZE))
        if self.read_buffer.base == NULL:
            return arena.window.over(arena.fresh_block(), arena.budget.window(BLOCK_SIZE))
        self.read_buffer.reserve(4096)
        return arena.window.over(
            self.read_buffer.tail(), arena.budget.window(self.read_buffer.room()))

    def buffer_updated(self, Py_ssize_t count):
        if self.is_gone() or self.discarding:
            return
        if self.tls is None:
            if self.read_buffer.base == NULL:
                self.read_buffer.adopt_fresh()
            self.read_buffer.commit(count)
            self.bytes_in += count
            self.has_unreported = True
            self.deliver()
            return
        self.take_ciphertext(self.arena.scratch, count)

    cdef int take_ciphertext(self, const char* data, Py_ssize_t count) except -1:
        self.tls.feed(data, count)
        try:
            self.deliver()
        finally:
            if self.is_gone() or self.discarding or self.tls.has_failed():
                self.tls.forget()
            else:
                self.tls.retain_input()
        return 0

    def eof_received(self):
        self.move_reading(READING_GET_FIN)
        if self.has_told_eof() and not self.is_gone():
            self.callbacks.on_fin(self)
        self.deliver()
        return True

    def pause_writing(self):
        # put() and flush() see how much it is
        self.move_backlog(BACKLOG_HOLD)

    def resume_writing(self):
        cdef bint was_paused = self.is_write_paused()
        self.move_backlog(BACKLOG_DRAIN)
        self.arena.budget.give(self.unsent)
        self.unsent = 0
        if self.state == ENDPOINT_ENDING:
            self.shut_writing()
        if was_paused:
            self.callbacks.on_writable(self, True)

    def connection_lost(self, error):
        self.move(ENDPOINT_LOST)
        note(LEDGER_ENDPOINT, -1)
        self.read_buffer.drop()
        self.write_buffer.drop()
        self.arena.budget.give(self.unsent)
        self.unsent = 0
        self.count_undecrypted(0)
        if self.tls is not None:
            self.tls.forget()
        try:
            if self.close_error is None:
                self.close_error = error
            self.callbacks.on_closed(self, self.close_error)
        finally:
            self.callbacks = EndpointCallbacks()
            self.transport = None
            self.write_out = None
            self.write_all = None

    # --- reading

    cdef int deliver(self) except -1:
        if self.delivering or self.waits_turn:
            return 0
        self.delivering = True
        try:
            if self.discarding:
                pass
            elif self.tls is not None:
                self.deliver_tls()
            elif self.has_unreported and not self.paused:
                self.has_unreported = False
                self.callbacks.on_data(self)
                # on_data() may have started TLS on the rest of the read buffer
                if self.tls is not None:
                    self.deliver_tls()
            if not (self.is_gone() or self.paused or self.waits_turn or self.has_told_eof()):
                self.deliver_eof()
        finally:
            self.delivering = False
        if self.read_buffer.size():
            if self.read_buffer.size() >= self.arena.max_buffer:
                self.pause_reading(PAUSE_BUFFER_FULL)
            if self.arena.budget.above_read_mark():
                self.read_buffer.shrink()
        return 0

    cdef int deliver_tls(self) except -1:
        cdef Py_ssize_t count
        cdef bint over_limit, is_full
        while not self.is_gone() and not self.paused and not self.discarding:
            if not self.tls.is_secured():
                if not self.step_handshake():
                    return 0
                continue
            is_full = self.read_buffer.size() >= self.arena.max_buffer
            if is_full:
                if self.tls.has_unread():
                    # the end of the connection waits behind it
                    self.pause_reading(PAUSE_BUFFER_FULL)
                break
            try:
                count = self.tls.read_into(self.read_buffer)
            except SSL_ERROR as error:
                self.abort(error)
                return 0
            over_limit = self.tls.work_limit_reached()
            if over_limit:
                self.wait_turn()
            if count:
                self.bytes_in += count
                self.callbacks.on_data(self)
            if self.waits_turn or (count == 0 and not over_limit):
                break
        if self.read_buffer.size() == 0:
            self.read_buffer.drop()
        if not self.is_gone():
            # between reads the engine holds at most a part of a record, unless reading was stopped
            # early
            if self.paused or self.waits_turn:
                self.count_undecrypted(<Py_ssize_t>self.tls.incoming.pending)
            else:
                self.count_undecrypted(self.tls.partial)
            if self.tls.outgoing.pending:
                self.flush()
        return 0

    cdef int wait_turn(self) except -1:
        self.tls.unproductive = 0
        if self.arena.budget.call_soon is None or self.is_closing():
            return 0
        self.waits_turn = True
        if not self.paused and not self.has_fin():
            # some loops read many times in a turn
            self.transport.pause_reading()
        self.arena.budget.call_soon(self.take_turn)
        return 0

    def take_turn(self):
        """Go on with the ciphertext that one turn of the loop did not finish. Called by the loop.
        """
        self.waits_turn = False
        if self.is_gone():
            return
        if not self.paused and not self.has_fin() and not self.is_closing():
            self.transport.resume_reading()
        self.deliver()

    cdef int deliver_eof(self) except -1:
        if self.tls is not None and self.tls.has_ended():
            self.move_reading(READING_TELL)
            self.callbacks.on_eof(self, True)
        elif self.has_fin():
            self.move_reading(READING_TELL)
            self.callbacks.on_eof(self, self.tls is None)
        return 0

    cdef int pause_reading(self, int reason) except -1:
        cdef int before = self.paused
        if self.is_gone():
            return 0
        self.paused |= reason
        if before == 0 and not self.has_fin() and not self.is_closing():
            self.transport.pause_reading()
        return 0

    cdef int resume_reading(self, int reasons) except -1:
        cdef int before = self.paused
        if self.is_gone() or before & reasons == 0:
            return 0
        self.paused &= ~reasons
        if self.paused:
            return 0
        if not self.has_fin() and not self.is_closing() and not self.waits_turn:
            self.transport.resume_reading()
        return self.deliver()

    cdef int resume_all(self) except -1:
        return self.resume_reading(self.paused)

    # --- writing

    cdef int send(self, const char* data, Py_ssize_t length) except -1:
        if self.is_closing() or length == 0:
            return 0
        self.bytes_out += length
        if self.write_buffer.size() + length <= GATHER_SIZE:
            return self.write_buffer.append(data, length)
        if self.write_buffer.size():
            self.pass_gathered()
        if length < GATHER_SIZE:
            return self.write_buffer.append(data, length)
        return self.write_through(data, length)

    cdef int send_packed(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t count
        if self.is_closing():
            return 0
        self.bytes_out += length
        self.gathered += length
        while length:
            count = self.write_buffer.size()
            if count == 0 and length >= GATHER_SIZE:
                count = GATHER_SIZE
                self.write_through(data, count)
            else:
                count = min(length, GATHER_SIZE - count)
                self.write_buffer.append(data, count)
                if self.write_buffer.size() == GATHER_SIZE:
                    self.pass_gathered()
            data += count
            length -= count
        return 0

    cdef int pass_gathered(self) except -1:
        self.passes += 1
        self.write_through(self.write_buffer.data(), self.write_buffer.size())
        self.write_buffer.drop()
        return 0

    cdef int send_bytes(self, bytes data) except -1:
        return self.send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int write_through(self, const char* data, Py_ssize_t length) except -1:
        if self.tls is None:
            self.write_out(PyBytes_FromStringAndSize(data, length))
            if self.has_unsent():
                self.count_unsent(length)
        elif not self.tls.has_failed():
            # else: what was gathered before the engine failed cannot be encrypted
            self.tls.write(data, length)
        return 0

    cdef int count_unsent(self, Py_ssize_t length) except -1:
        self.unsent += length
        self.arena.budget.take(length)
        # a short response releases its upstream before a slow client has read it, unless memory is
        # short
        if self.is_write_paused():
            return 0
        if self.unsent >= BLOCK_SIZE or self.arena.budget.above_read_mark():
            self.move_backlog(BACKLOG_FILL)
            return self.callbacks.on_writable(self, False)
        return 0

    cdef void count_undecrypted(self, Py_ssize_t length) noexcept:
        if length > self.undecrypted:
            self.arena.budget.take(length - self.undecrypted)
        elif length < self.undecrypted:
            self.arena.budget.give(self.undecrypted - length)
        self.undecrypted = length

    cdef int flush(self) except -1:
        if self.is_closing():
            return 0
        self.gathered = self.flushed_early = 0
        if self.write_buffer.size():
            self.pass_gathered()
        return self.write_ciphertext() if self.tls is not None else 0

    cdef int flush_records(self) except -1:
        if self.is_closing():
            return 0
        self.flushed_early += self.gathered - self.write_buffer.size()
        self.gathered = self.write_buffer.size()
        return self.write_ciphertext() if self.tls is not None else 0

    cdef int write_ciphertext(self) except -1:
        cdef object ciphertext = self.tls.take()
        if ciphertext is None:
            return 0
        if type(ciphertext) is bytes:
            self.write_out(ciphertext)
            if self.has_unsent():
                self.count_unsent(PyBytes_GET_SIZE(ciphertext))
        else:
            if self.write_all is None:
                self.write_out(b"".join(ciphertext))
            else:
                self.write_all(ciphertext)
            if self.has_unsent():
                self.count_unsent(sum(map(len, ciphertext)))
        return 0

    cdef int flush_last(self) except -1:
        self.flush()
        if self.tls is not None and self.tls.may_shut():
            self.tls.shut()
            self.flush()
        return 0

    cdef int end_writing(self) except -1:
        if self.state != ENDPOINT_OPEN:
            return 0
        self.flush_last()
        if self.state != ENDPOINT_OPEN:
            # on_writable() has closed it
            return 0
        if not self.shuts_socket:
            self.move(ENDPOINT_END)
            if self.transport.can_write_eof():
                self.transport.write_eof()
        elif self.has_unsent():
            self.move(ENDPOINT_END_LATER)
        else:
            self.shut_writing()
        return 0

    cdef int shut_writing(self) except -1:
        # like asyncio's write_eof(), which raises the OSError for a peer that has gone, or only
        # logs it
        self.move(ENDPOINT_END)
        try:
            self.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        except OSError:
            # the loop sees it too; connection_lost() follows
            pass
        return 0

    # --- ending

    cpdef int close(self) except -1:
        """Close in order: close_notify, what is queued, FIN. `callbacks.on_closed` follows."""
        self.arena.check_thread()
        if self.is_closing() or self.transport is None:
            return 0
        self.flush_last()
        self.stop_sending()
        self.transport.close()
        return 0

    cdef int stop_sending(self) except -1:
        # what was called back meanwhile may have closed it
        if not self.is_closing():
            self.move(ENDPOINT_CLOSE)
        return 0

    cdef int close_truncated(self) except -1:
        if self.is_closing():
            return 0
        self.flush()
        self.stop_sending()
        self.transport.close()
        return 0

    cpdef int abort(self, object error=None) except -1:
        """Close now. `callbacks.on_closed` follows and gets `error`."""
        self.arena.check_thread()
        if self.is_gone() or self.transport is None:
            return 0
        self.close_error = error
        if self.tls is None:
            if error is not None:
                self.reset_on_close()
        elif not self.is_closing():
            # the alert that tells the peer why, if the engine made one
            self.tls.defer_output = False
            self.flush()
        self.stop_sending()
        self.transport.abort()
        return 0

    cdef int reset_on_close(self) except -1:
        # without TLS, a FIN would say that the peer has everything
        try:
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        except OSError:
            # some systems report here that the connection is gone
            pass
        return 0

    def write(self, bytes data not None):
        """Send `data` now, as plaintext. For the control plane, once in a connection's life."""
        self.arena.check_thread()
        self.send_bytes(data)
        self.flush()

    # --- TLS

    def start_tls(self, context, bint server_side, server_hostname=None, session=None):
        """Begin a handshake with the bytes of the read buffer. `callbacks.on_tls_done` gets the
        result.

        `context` is an ``ssl.SSLContext``. Raises ``ssl.SSLError`` or ``ValueError`` when the
        engine cannot be made (a malformed host name, a session of another context).
        """
        self.arena.check_thread()
        self.tls = TlsEngine(self.arena, context, server_side, server_hostname, session)
        if self.read_buffer.size():
            self.tls.feed(self.read_buffer.data(), self.read_buffer.size())
            self.tls.retain_input()
            self.bytes_in -= self.read_buffer.size()
            self.read_buffer.drop()
        self.has_unreported = False
        if self.paused:
            # a full read buffer has stopped the reading, and is empty now
            self.resume_all()
        else:
            self.deliver()

    cdef int step_handshake(self) except -1:
        if self.tls.has_failed():
            # on_tls_done got the error
            return 0
        try:
            self.tls.handshake()
        except (SSL_ERROR, ValueError) as error:
            self.flush()
            self.callbacks.on_tls_done(self, error)
            return 0
        self.flush()
        if self.tls.is_secured():
            self.callbacks.on_tls_done(self, None)
            return 1
        return 0
