"""A session whose events and octets Python sees. The proxy itself uses `Session`."""

cimport cython
from libc.stdint cimport uint32_t

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http2.limits cimport Http2Limits, limit_name
from soth_mitm._dataplane.http2.session cimport HeadMemory, Outlet, Session, SessionCallbacks
from soth_mitm._dataplane.http2.session_stream cimport WAIT_NOTHING, SessionStream
from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits

from soth_mitm._dataplane.http2.frame import name_error_code


@cython.final
cdef class RecordingOutlet(Outlet):
    """Keeps what a session sends."""

    def __cinit__(self):
        self.sent = bytearray()

    cdef int send(self, const char* data, Py_ssize_t length) except -1:
        self.sent += data[:length]
        return 0

    cdef Py_ssize_t unsent(self) noexcept:
        return len(self.sent) if self.counts else 0


@cython.final
cdef class RecordingCallbacks(SessionCallbacks):
    """Keeps what it is told, as tuples."""

    def __cinit__(self):
        self.events = []
        self.streams = {}
        self.room = {}

    cdef int note(self, tuple event) except -1:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)
        return 0

    cdef int on_ready(self) except -1:
        return self.note(("ready",))

    cdef int on_stream_head(self, SessionStream stream, Head head, bint https, bint is_end) except -1:
        self.streams[stream.id] = stream
        return self.note(("head", stream.id, head, bool(is_end)))

    cdef Py_ssize_t on_stream_data(self, SessionStream stream, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t taken = min(length, <Py_ssize_t>self.room.get(stream.id, length))
        if stream.id in self.room:
            self.room[stream.id] -= taken
        if taken:
            self.note(("data", stream.id, data[:taken]))
        return taken

    cdef int on_stream_trailers(self, SessionStream stream, bytes lines) except -1:
        return self.note(("trailers", stream.id, lines))

    cdef int on_stream_end(self, SessionStream stream) except -1:
        return self.note(("end", stream.id))

    cdef int on_stream_reset(self, SessionStream stream, uint32_t code, bint by_peer) except -1:
        return self.note(("reset", stream.id, name_error_code(code), bool(by_peer)))

    cdef int on_stream_writable(self, SessionStream stream) except -1:
        return self.note(("writable", stream.id))

    cdef int on_going_away(self, uint32_t last, uint32_t code) except -1:
        return self.note(("going_away", last, name_error_code(code)))

    cdef int on_failed(self, uint32_t code, str text) except -1:
        return self.note(("failed", name_error_code(code), text))


@cython.final
cdef class SessionProbe:
    """A session with callbacks that record. Streams are named by their number."""

    def __cinit__(self, bint is_server, Arena arena not None, Http2Limits limits=None, bint offers_connect=False,
                  HeadMemory memory=None):
        self.outlet = RecordingOutlet()
        self.callbacks = RecordingCallbacks()
        self.totals = Counters()
        self.session = Session(is_server, arena, HeadMemory() if memory is None else memory,
                               Http2Limits() if limits is None else limits, self.outlet, self.callbacks, self.totals, offers_connect)

    cdef SessionStream stream(self, number):
        return self.callbacks.streams[number]

    def begin(self):
        """Write the preface."""
        self.session.begin()

    def feed(self, bytes data not None, double now=-1.0):
        """Show what came; returns how much of it was used up. A `now` sets the time."""
        if now >= 0:
            self.session.now = now
        return self.session.feed(data, len(data))

    def feed_all(self, bytes data not None):
        """Show what came until nothing more of it is used up; returns the rest."""
        cdef Py_ssize_t count
        while data:
            count = self.session.feed(data, len(data))
            data = data[count:]
            if not self.session.has_more:
                break
        return data

    def take_sent(self):
        """Return what was sent since the last call: the system has taken it."""
        cdef bytes sent = bytes(self.outlet.sent)
        self.outlet.sent.clear()
        return sent

    def count_unsent(self, bint counts):
        """Count what was sent as not taken by the system until take_sent()."""
        self.outlet.counts = counts

    def take_events(self):
        """Return what was told since the last call."""
        cdef list events = self.callbacks.events
        self.callbacks.events = []
        return events

    def call_with_events(self, call):
        """Call this with each event, within the session's call."""
        self.callbacks.on_event = call

    def give_room(self, number, length):
        """Take so much of a stream's content at once, and keep the rest; None: all."""
        if length is None:
            self.callbacks.room.pop(number, None)
        else:
            self.callbacks.room[number] = length

    def serve(self):
        """The outlet has room again."""
        self.session.serve()

    @property
    def capacity(self):
        """How many streams may be opened."""
        return self.session.capacity()

    def open(self, Head head not None, bint is_end=True, HeadEdits edits=None, bint https=True, bytes authority not None=b"",
             bytes protocol not None=b""):
        """Send a request; returns the stream's number, None when there is no capacity."""
        cdef SessionStream stream = self.session.open(head, edits, https, view_of(authority, len(authority)),
                                                      view_of(protocol, len(protocol)), is_end)
        if stream is None:
            return None
        self.callbacks.streams[stream.id] = stream
        return stream.id

    def head(self, number, Head head not None, bint is_end=False, HeadEdits edits=None):
        """Send a response's head."""
        self.session.head(self.stream(number), head, edits, is_end)

    def own_head(self, number, int status, headers=(), Py_ssize_t length=-1, bint is_end=False):
        """Send a head of our own."""
        self.session.own_head(self.stream(number), status, headers, length, is_end)

    def data(self, number, bytes data not None, bint is_end=False):
        """Send content; returns how much of it was taken."""
        return self.session.data(self.stream(number), data, len(data), is_end)

    def trailers(self, number, bytes lines not None):
        """Send trailers."""
        self.session.trailers(self.stream(number), lines)

    def reset(self, number, uint32_t code=8):
        """End a stream."""
        self.session.reset(self.stream(number), code)

    def release(self, number):
        """Have done with a stream."""
        self.session.release(self.stream(number))

    def kept(self, number):
        """Return what is kept of a stream's content."""
        cdef View view
        return view_bytes(view) if self.session.content(self.stream(number), &view) else b""

    def consume(self, number, Py_ssize_t length):
        """Take so much of what is kept; returns it."""
        cdef bytes taken = self.kept(number)[:length]
        if len(taken) != length:
            raise ValueError("so much is not kept")
        self.session.consume(self.stream(number), length)
        return taken

    def waits(self, number):
        """Tell whether a stream waits to write."""
        return self.stream(number).wait != WAIT_NOTHING

    def windows(self, number=None):
        """Return what may come, what the window is filled up to, and what may be sent, of a stream or of the connection."""
        cdef SessionStream stream
        if number is None:
            return self.session.window.left, self.session.window.size, self.session.send_left
        stream = self.stream(number)
        return stream.window.left, stream.window.size, stream.send_left

    def state(self, number):
        """Return a stream's state, a place in STATE_NAMES."""
        return self.stream(number).state

    def protocol(self, number):
        """Return :protocol of a request, None without."""
        return self.stream(number).protocol

    def ping(self):
        """Send a PING."""
        self.session.ping()

    @property
    def unanswered_for(self):
        """Seconds since a PING without an answer, 0 without one."""
        return self.session.unanswered_for()

    def goaway(self, uint32_t code=0):
        """Send the last GOAWAY."""
        self.session.goaway(code)

    def drain(self):
        """Ask the peer for no new streams."""
        self.session.drain()

    def finish_drain(self):
        """Take no new streams."""
        self.session.finish_drain()

    def check_head(self):
        """A deadline passed."""
        self.session.check_head()

    def check_settings(self, double seconds):
        """A deadline passed."""
        self.session.check_settings(seconds)

    def check_stalls(self):
        """A deadline passed."""
        self.session.check_stalls()

    @property
    def limit_hit(self):
        """The name of the limit that ended the connection, "" without."""
        return limit_name(self.session.limit_hit)

    @property
    def glitches(self):
        """How many odd things the peer did."""
        return self.session.counters.total_glitches
