# One socket: the buffered protocol of the loop on one side, an EndpointCallbacks on the other.

cimport cython

from libc.stdint cimport int64_t

from soth_mitm._dataplane.memory.buffer cimport Arena, Buffer
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.transport.states cimport (
    BACKLOG_FULL,
    BACKLOG_NONE,
    ENDPOINT_CLOSING,
    ENDPOINT_GONE,
    READING_ENDED,
    READING_FIN,
    READING_FINISHED,
    BacklogInput,
    BacklogState,
    EndpointInput,
    EndpointState,
    ReadingInput,
    ReadingState,
)
from soth_mitm._dataplane.transport.tls_engine cimport TlsEngine


cdef enum:
    GATHER_SIZE = 16384        # small writes are gathered up to one TLS record


cdef class Endpoint:
    cdef readonly Arena arena
    cdef EndpointCallbacks callbacks  # called for each event; never None
    cdef readonly object transport    # None before connection_made
    cdef readonly TlsEngine tls       # None: plain text
    cdef Buffer read_buffer           # plaintext that came and is not consumed yet
    cdef Buffer write_buffer          # small writes that wait for flush()
    cdef object write_out             # transport.write
    cdef object write_all             # transport.writelines, or None

    cdef EndpointState state
    cdef ReadingState reading
    cdef BacklogState backlog
    cdef readonly int paused           # PauseReason bits: why we do not read; 0: we do
    cdef Py_ssize_t unsent             # bytes in the transport: counted by the budget
    cdef Py_ssize_t gathered           # bytes given to send_packed() that flush() has not seen
    cdef Py_ssize_t flushed_early      # bytes that flush_records() wrote since the last flush()
    # No state: it stands in the loop's GatheredWrites, however it is closed meanwhile
    cdef bint is_gathered
    cdef int64_t passes                # how often the write buffer was emptied
    cdef Py_ssize_t undecrypted        # ciphertext in the TLS engine: counted by the budget

    # No states: each of these may hold in several states
    # asyncio's transport: its write_eof() raises when the peer has gone. A fact about the loop
    cdef bint shuts_socket
    # deliver() is under way: a callback that reads on must not start another
    cdef bint delivering
    # A callback of the loop is under way, with the ciphertext that one turn may not process. No
    # PauseReason: what takes over an endpoint clears those
    cdef readonly bint waits_turn
    # What arrives is thrown away; only the peer's FIN counts. How we close, whatever the peer does
    cdef bint discarding
    cdef bint has_unreported           # plain text in the read buffer before on_data() was called

    cdef readonly object close_error   # why it ended early, for callbacks.on_closed()
    cdef readonly int64_t bytes_in     # plaintext
    cdef readonly int64_t bytes_out

    @cython.final
    cdef inline bint is_gone(self) noexcept nogil:
        return self.state == ENDPOINT_GONE

    # nothing more is sent
    @cython.final
    cdef inline bint is_closing(self) noexcept nogil:
        return self.state >= ENDPOINT_CLOSING

    @cython.final
    cdef inline bint has_fin(self) noexcept nogil:
        return self.reading == READING_FIN or self.reading == READING_FINISHED

    # callbacks.on_eof() was called
    @cython.final
    cdef inline bint has_told_eof(self) noexcept nogil:
        return self.reading >= READING_ENDED

    # the transport could not write all of what it was given
    @cython.final
    cdef inline bint has_unsent(self) noexcept nogil:
        return self.backlog != BACKLOG_NONE

    # the transport holds too much: send no more
    @cython.final
    cdef inline bint is_write_paused(self) noexcept nogil:
        return self.backlog == BACKLOG_FULL

    cdef int move(self, EndpointInput event) except -1
    cdef int move_reading(self, ReadingInput event) except -1
    cdef int move_backlog(self, BacklogInput event) except -1

    # Reading
    # `data` is the caller's
    cdef int take_ciphertext(self, const char* data, Py_ssize_t count) except -1
    cdef int deliver(self) except -1
    cdef int deliver_tls(self) except -1
    cdef int wait_turn(self) except -1
    cdef int deliver_eof(self) except -1
    # Stop reading for that reason; what is in the read buffer stays there
    cdef int pause_reading(self, int reason) except -1
    # These reasons are gone. When none is left: read on, and tell what had already come
    cdef int resume_reading(self, int reasons) except -1
    cdef int resume_all(self) except -1

    # Writing; flush() after the last send() of a turn
    cdef int send(self, const char* data, Py_ssize_t length) except -1
    # The same in full TLS records, whatever the sizes of the pieces; GatheredWrites flushes
    cdef int send_packed(self, const char* data, Py_ssize_t length) except -1
    cdef int send_bytes(self, bytes data) except -1
    cdef int flush(self) except -1
    # What makes full records of send_packed() leaves now, the rest with flush()
    cdef int flush_records(self) except -1
    cdef int write_ciphertext(self) except -1
    # what the write buffer has goes to TLS or the transport
    cdef int pass_gathered(self) except -1
    cdef int write_through(self, const char* data, Py_ssize_t length) except -1
    cdef int count_unsent(self, Py_ssize_t length) except -1
    cdef void count_undecrypted(self, Py_ssize_t length) noexcept
    cdef int flush_last(self) except -1   # and close_notify
    cdef int end_writing(self) except -1  # half-close, after close_notify

    cdef int shut_writing(self) except -1

    # Ending
    cpdef int close(self) except -1                  # in order: close_notify, flush, close
    # without close_notify: the last message is incomplete
    cdef int close_truncated(self) except -1
    # now: what is queued is lost; with an error, a reset
    cpdef int abort(self, object error=*) except -1
    cdef int stop_sending(self) except -1
    cdef int reset_on_close(self) except -1

    # TLS
    cdef int step_handshake(self) except -1
