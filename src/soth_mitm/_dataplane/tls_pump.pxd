# One TLS engine over memory: ciphertext in, plaintext out, and back. No transport, no loop.
#
# The `ssl` module raises WantRead when a read finds no whole record, which costs 2-3 us; the pump counts records as ciphertext comes in and
# asks only when one is complete. One thread, one connection.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.buffer cimport Arena, Buffer


cdef class TlsPump:
    cdef Arena arena
    cdef readonly object ssl_object    # ssl.SSLObject: facts of the handshake are asked from it
    cdef object incoming               # ssl.MemoryBIO
    cdef object feed_bio               # incoming.write
    cdef object take_bio               # outgoing.read
    cdef object outgoing
    cdef object ssl_read
    cdef object ssl_write
    cdef object ssl_pending
    cdef readonly bint secured         # the handshake is complete
    cdef readonly bint ended           # close_notify came: no more plaintext
    cdef bint maybe_pending            # the last read filled the space it was given

    # where the records lie in the ciphertext so far
    cdef unsigned char header[5]
    cdef int header_len                # bytes of the current record's header
    cdef Py_ssize_t record_left        # bytes of the current record's body that are still to come
    cdef Py_ssize_t partial            # bytes of the current, incomplete record that came

    # Ciphertext in
    cdef int feed(self, char* data, Py_ssize_t length) except -1
    cdef void track(self, const char* data, Py_ssize_t length) noexcept nogil
    # Handshake: 1 when it is complete, 0 when it waits for the peer; raises ssl.SSLError
    cdef int handshake(self) except -1
    # Plaintext out: bytes put into `target` (whose room bounds them), 0 when there is none now; raises ssl.SSLError
    cdef Py_ssize_t read_into(self, Buffer target) except -1
    # Plaintext in
    cdef int write(self, const char* data, Py_ssize_t length) except -1
    # Ciphertext out: what is to be sent now, or None
    cdef bytes take(self)
    # Say close_notify; the alert is among what take() gives next
    cdef int shut(self) except -1
