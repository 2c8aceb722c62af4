"""Exchanges between two sessions, without Python in between: what `bench_http2.py` measures, which also compiles it."""

cimport cython
from libc.stdint cimport uint32_t

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http2.limits cimport Http2Limits
from soth_mitm._dataplane.http2.octets cimport Octets
from soth_mitm._dataplane.http2.session cimport HeadMemory, Outlet, Session, SessionCallbacks
from soth_mitm._dataplane.http2.session_stream cimport SessionStream
from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.memory.view cimport view_of
from soth_mitm._dataplane.wire.head cimport Head


@cython.final
cdef class Wire(Outlet):
    cdef Octets octets

    def __cinit__(self):
        self.octets = Octets()

    cdef int send(self, const char* data, Py_ssize_t length) except -1:
        return self.octets.append(data, length)

    cdef Py_ssize_t unsent(self) noexcept:
        return 0


@cython.final
cdef class Server(SessionCallbacks):
    cdef Session session
    cdef Head response
    cdef bytes content

    cdef int on_stream_end(self, SessionStream stream) except -1:
        self.session.head(stream, self.response, None, False)
        self.session.data(stream, self.content, len(self.content), True)
        return self.session.release(stream)


@cython.final
cdef class Client(SessionCallbacks):
    cdef Session session
    cdef Py_ssize_t received
    cdef int ended

    cdef Py_ssize_t on_stream_data(self, SessionStream stream, const char* data, Py_ssize_t length) except -1:
        self.received += length
        return length

    cdef int on_stream_end(self, SessionStream stream) except -1:
        self.ended += 1
        return 0


@cython.final
cdef class Exchanges:
    """A client and a server on one wire; `content` is what is answered."""

    cdef Client client
    cdef Server server
    cdef Wire to_server
    cdef Wire to_client

    def __cinit__(self, Head response, bytes content):
        cdef Arena arena = Arena()
        cdef HeadMemory memory = HeadMemory()
        self.to_server, self.to_client = Wire(), Wire()
        self.client, self.server = Client(), Server()
        self.client.session = Session(False, arena, memory, Http2Limits(), self.to_server, self.client, Counters())
        self.server.session = Session(True, arena, memory, Http2Limits(), self.to_client, self.server, Counters())
        self.server.response = response
        self.server.content = content
        self.client.session.begin()
        self.server.session.begin()
        self.bring()
        self.bring()

    cdef int bring(self) except -1:
        """Bring octets both ways."""
        cdef Octets octets = self.to_server.octets
        self.server.session.feed(octets.data, octets.size)
        octets.clear()
        octets = self.to_client.octets
        self.client.session.feed(octets.data, octets.size)
        octets.clear()
        return 0

    def run(self, list requests not None, int at_once):
        """Send these heads, so many before their answers; returns how much content came."""
        cdef Head head
        cdef int sent = 0
        self.client.received = self.client.ended = 0
        for head in requests:
            self.client.session.open(head, None, True, view_of(NULL, 0), view_of(NULL, 0), True)
            sent += 1
            if sent % at_once == 0:
                self.bring()
        self.bring()
        self.bring()
        if self.client.ended != sent:
            raise AssertionError(f"{self.client.ended} of {sent} were answered")
        return self.client.received
