# One TLS engine over memory: ciphertext in, plaintext out, and back. No transport, no loop.
#
# The `ssl` module raises WantRead when a read finds no whole record, which costs 2-3 us. So the
# engine counts records as ciphertext arrives, and reads only when one is complete. One thread, one
# connection.
#
# A memory BIO never shrinks. So ciphertext goes in and out in slices: the memory of an idle
# connection does not depend on how much went through it at once.

cimport cython
from cpython.ref cimport PyObject

from libc.stdint cimport int64_t

from soth_mitm._dataplane.memory.buffer cimport Arena, Buffer
from soth_mitm._dataplane.transport.states cimport (
    TLS_CLOSED,
    TLS_ENDED,
    TLS_FAILED,
    TLS_OPEN,
    TLS_SHUT,
    TlsInput,
    TlsState,
)


cdef extern from "Python.h":
    PyObject* PyObject_CallNoArgs(object function)     # a new reference; NULL: an exception is set


cdef enum:
    FEED_SLICE = 16384         # ciphertext that goes into the engine at once
    WRITE_SLICE = 16384        # plaintext that goes into the engine at once
    ROOM = 16384               # for plaintext, when there is some: a record
    UNPRODUCTIVE_LIMIT = 8192  # ciphertext without plaintext that one turn of the loop may process
    # A flight with a certificate is longer; a HelloRetryRequest and a resuming answer are shorter
    CERTIFICATE_FLIGHT = 512


cdef class TlsEngine:
    cdef Arena arena
    cdef readonly object ssl_object  # ssl.SSLObject: facts of the handshake are asked from it
    cdef object engine               # below it, without its Python wrapper where there is one
    cdef object version              # of the protocol, once it is agreed on
    cdef object incoming             # ssl.MemoryBIO
    cdef object feed_bio             # incoming.write
    cdef object take_bio             # outgoing.read
    cdef object outgoing
    cdef object ssl_read
    cdef object ssl_write
    cdef object ssl_pending
    cdef object do_handshake
    cdef bint server_side
    cdef TlsState state

    # No states: facts about bytes, which may hold in several states
    cdef readonly bint has_shown     # our certificate was in what the peer was sent
    cdef bint maybe_pending          # the last read filled the space it was given

    # ciphertext that the engine has not got yet
    cdef const char* borrowed     # of the read under way, in its caller's memory
    cdef Py_ssize_t borrowed_len
    cdef Buffer pending_input     # of reads before it
    cdef bint needs_input         # the engine has no whole record
    cdef Py_ssize_t unproductive  # ciphertext that the engine got without plaintext for it

    # ciphertext of the engine that is not sent yet
    cdef list slices          # taken from it already, before what lies in `outgoing`; or None
    cdef bint defer_output    # it goes with the first plaintext, or with close_notify

    # where the records lie in the ciphertext that the engine has got
    cdef unsigned char header[5]
    cdef int header_len          # bytes of the current record's header
    cdef Py_ssize_t record_left  # bytes of the current record's body that are still to come
    cdef Py_ssize_t partial      # bytes of the current, incomplete record that came

    cdef int move(self, TlsInput event) except -1

    # the handshake is complete
    cdef inline bint is_secured(self) noexcept nogil:
        return self.state >= TLS_OPEN

    cdef inline bint has_failed(self) noexcept nogil:
        return self.state == TLS_FAILED

    # plaintext may still come
    cdef inline bint may_read(self) noexcept nogil:
        return self.state == TLS_OPEN or self.state == TLS_SHUT

    # the peer's close_notify came
    cdef inline bint has_ended(self) noexcept nogil:
        return self.state == TLS_ENDED or self.state == TLS_CLOSED

    # our close_notify is not written yet
    cdef inline bint may_shut(self) noexcept nogil:
        return self.state == TLS_OPEN or self.state == TLS_ENDED

    # Ciphertext in; borrowed until retain_input(), which copies what is not consumed
    cdef int feed(self, const char* data, Py_ssize_t length) except -1
    cdef int retain_input(self) except -1
    cdef int forget(self) except -1               # all of it
    cdef bint has_unread(self) except -1          # more than a part of a record
    cdef bint work_limit_reached(self) except -1  # the rest waits for the next turn of the loop
    cdef int top_up(self) except -1               # 1: the engine got another slice
    cdef bint has_record(self) except -1          # the engine has a whole record, after a top_up()
    cdef void track(self, const char* data, Py_ssize_t length) noexcept nogil
    # Handshake: 1 when it is complete, 0 when it waits for the peer; raises ssl.SSLError
    cdef int handshake(self) except -1
    # Plaintext out: how many bytes were appended to `target`, which grows only when it has no room
    # for a record; 0: none now. Raises ssl.SSLError
    cdef Py_ssize_t read_into(self, Buffer target) except -1
    # Plaintext in
    cdef int write(self, const char* data, Py_ssize_t length) except -1
    # Ciphertext out: what is to be sent now: bytes, a list of them, or None
    cdef object take(self)
    # Write close_notify; take() returns it next
    cdef int shut(self) except -1
