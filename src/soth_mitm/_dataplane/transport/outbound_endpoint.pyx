"""A socket that we connected to an upstream, and what the loop has not yet seen of it."""

from libc.stdint cimport intptr_t

from soth_mitm._dataplane.transport.endpoint cimport Endpoint

cdef extern from "liveness.h" nogil:
    enum:
        SOTH_READ_ENDED
        SOTH_READ_NOTHING

    Py_ssize_t soth_read_now(intptr_t socket, char* p, size_t n) noexcept

cdef enum:
    LOOK_SIZE = 16384      # what is taken at once of bytes that the loop has not seen


# not final: proxy/ adds asyncio.BufferedProtocol
cdef class OutboundEndpoint(Endpoint):
    """A socket that we connected to an upstream.

    Between two requests it must be silent. The loop tells what it has seen, but between its last
    look and this moment a FIN, a RST or bytes may have come. A response that was there before its
    request would be taken for the response to the next one. So the socket itself is read before
    each reuse, for the price of one system call. Plain bytes belong to no request, and end the
    connection. Bytes of TLS may be a session ticket, which many servers send when they like: the
    engine takes them. Only if it finds data or an end in them, or a part of a record, the
    connection is done for.
    """

    def connection_made(self, transport):
        Endpoint.connection_made(self, transport)
        self.socket = transport.get_extra_info("socket").fileno()

    cdef int is_live(self) except -1:
        # not the arena's scratch space: what the client sent behind its request may lie there
        cdef char seen[LOOK_SIZE]
        cdef Py_ssize_t count
        cdef int reads = 0
        # twice: a FIN may stand behind a ticket. A peer that still sends then has not finished
        while reads < 2:
            reads += 1
            if self.is_closing() or self.has_told_eof() or self.read_buffer.size():
                return False
            if self.tls is not None and (self.tls.partial or self.tls.has_unread()):
                return False
            count = soth_read_now(self.socket, seen, LOOK_SIZE)
            if count == SOTH_READ_NOTHING:
                return True
            if count == SOTH_READ_ENDED or self.tls is None:
                return False
            self.take_ciphertext(seen, count)
        return False

    cdef bint read_once(self) except -1:
        cdef char seen[LOOK_SIZE]
        cdef Py_ssize_t count
        if self.is_closing() or self.has_told_eof():
            return False
        if self.paused or self.waits_turn or self.delivering:
            # what lies there has its turn
            return True
        count = soth_read_now(self.socket, seen, LOOK_SIZE)
        if count > 0:
            self.take_unasked(seen, count)
        return count != SOTH_READ_ENDED and not (self.is_closing() or self.has_told_eof())

    cdef int take_unasked(self, const char* data, Py_ssize_t count) except -1:
        """Take what the loop has not read."""
        if self.tls is not None:
            return self.take_ciphertext(data, count)
        self.read_buffer.append(data, count)
        self.bytes_in += count
        self.has_unreported = True
        return self.deliver()

    cdef int read_last_words(self) except -1:
        cdef char said[LOOK_SIZE]
        cdef Py_ssize_t count
        while not self.paused and not self.discarding and not self.waits_turn:
            count = soth_read_now(self.socket, said, LOOK_SIZE)
            if count <= 0:
                break
            self.take_unasked(said, count)
        return 0

    def connection_lost(self, error):
        cdef bint secured = self.tls is None or self.tls.is_secured()
        if isinstance(error, OSError) and not self.is_closing() and secured:
            # A peer that refuses us (an upload by its response, our TLS by an alert) and closes
            # with our data unread sends a reset. What we write next fails before its reason was
            # read
            self.stop_sending()
            self.read_last_words()
        Endpoint.connection_lost(self, error)
