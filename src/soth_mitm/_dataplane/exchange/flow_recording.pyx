"""What event sinks are told of flows, while they last and when they end.

A flow that has changed is handed over at most every tenth of a second, and once more when it has ended. Between two such times it keeps
what its content was; all flows together keep no more than `MOST_HELD` bytes of it, beyond which a flow is handed over at once.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.time cimport monotonic, time
from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks

cdef enum:
    MOST_HELD = 8388608        # bytes of content between two updates, of all flows
    PIECE_OCTETS = 128         # that a piece or a message takes besides its bytes
    LONGEST_PIECE = 65536      # that is put together from what came at once

cdef double UPDATE_SECONDS = 0.1
# what comes within that time is one piece
cdef double RUN_SECONDS = 0.002


@cython.final
cdef class Recorder:
    """What all sinks of a proxy want together. `events` has a bit for each kind of event, in the order of `FlowEventKind`."""

    def __cinit__(self, loop, on_flow, on_event, *, int64_t events=0, bint flows=False, Py_ssize_t content=0, bint messages=False):
        self.loop = loop
        self.on_flow = on_flow
        self.on_event = on_event
        self.events = events
        self.flows = flows
        self.content = content
        self.messages = messages
        self.changed = []

    cdef bint reads_messages(self) noexcept:
        return self.messages or self.wants(TOLD_WEBSOCKET_FRAME) or self.wants(TOLD_WEBSOCKET_TURN_STARTED) or self.wants(
            TOLD_WEBSOCKET_TURN_COMPLETED)

    def recording(self, int64_t flow_id, double began=0.0):
        """Return the recording of a flow that is no exchange, which begins now, or has begun then (by `time.monotonic`)."""
        return new_flow_recording(self, None, flow_id, began or monotonic())

    def tell_changed(self):
        """Hand over the flows that have changed. Called by the loop."""
        cdef FlowRecording recording
        changed, self.changed = self.changed, []
        self.is_due = False
        for recording in changed:
            recording.is_changed = False
            if not recording.is_over:
                recording.deliver()


@cython.final
@cython.freelist(64)
cdef class FlowRecording:
    """What is noted of one flow."""

    cdef double since_began(self) noexcept:
        return monotonic() - self.began

    cdef int touch(self) except -1:
        cdef Recorder recorder = self.recorder
        if self.is_changed or self.is_over or not recorder.flows:
            return 0
        self.is_changed = True
        recorder.changed.append(self)
        if not recorder.is_due:
            recorder.is_due = True
            recorder.loop.call_later(UPDATE_SECONDS, recorder.tell_changed)
        return 0

    cdef int tell(self, int place, dict attributes) except -1:
        self.recorder.on_event(self, place, attributes)
        return 0

    # ---- content

    cdef int count(self, bint to_client, Py_ssize_t length) except -1:
        if to_client:
            self.response_size += length
        else:
            self.request_size += length
        return self.touch()

    cdef int note_content(self, bint to_client, const char* data, Py_ssize_t length) except -1:
        cdef Recorder recorder = self.recorder
        cdef int place = TOLD_RESPONSE_BODY_CHUNK if to_client else TOLD_REQUEST_BODY_CHUNK
        cdef int64_t kept = self.response_kept if to_client else self.request_kept
        cdef Py_ssize_t taken, more = 0
        cdef double now
        if length == 0:
            return 0
        if recorder.wants(place):
            self.tell(place, {"bytes": length, "offset": self.response_size if to_client else self.request_size})
        self.count(to_client, length)
        taken = 0 if self.is_secret else <Py_ssize_t>min(<int64_t>length, recorder.content - kept)
        if taken <= 0:
            return 0
        if to_client:
            self.response_kept += taken
        else:
            self.request_kept += taken
        now = self.since_began()
        if self.run is not None and (
                self.run_to_client != to_client or now - self.run_at > RUN_SECONDS or self.run_size + taken > LONGEST_PIECE):
            self.add_piece()
        if self.run is None:
            self.run = []
            self.run_at = now
            self.run_to_client = to_client
            more = PIECE_OCTETS
        self.run.append(PyBytes_FromStringAndSize(data, taken))
        self.run_size += taken
        return self.hold(taken + more)

    cdef int add_piece(self) except -1:
        cdef list run = self.run
        if run is None:
            return 0
        if self.pieces is None:
            self.pieces = []
        self.pieces.append((self.run_at, bool(self.run_to_client), run[0] if len(run) == 1 else b"".join(run)))
        self.run = None
        self.run_size = 0
        return 0

    cdef int note_message(self, bint to_client, int opcode, bytes data, int64_t size) except -1:
        cdef Recorder recorder = self.recorder
        cdef Py_ssize_t taken
        if recorder.wants(TOLD_WEBSOCKET_FRAME) or self.turns is not None:
            self.tell(TOLD_WEBSOCKET_FRAME, {
                "bytes": size, "direction": "to_client" if to_client else "to_upstream", "fin": 1, "opcode": opcode})
        if not recorder.messages:
            return 0
        taken = min(<Py_ssize_t>len(data), recorder.content)
        if self.messages is None:
            self.messages = []
        self.messages.append((self.since_began(), bool(to_client), opcode, data if taken == len(data) else data[:taken], size))
        self.touch()
        return self.hold(taken + PIECE_OCTETS)

    cdef int hold(self, Py_ssize_t octets) except -1:
        self.held += octets
        self.recorder.held += octets
        return self.deliver() if self.recorder.held > MOST_HELD else 0

    # ---- what was decided, and where it goes

    cdef int note_decision(self, int verdict, object cause) except -1:
        if self.is_over:
            # it was asked about when all was over
            return 0
        self.decided = self.since_began()
        if self.recorder.wants(TOLD_REQUEST_DECISION):
            self.tell(TOLD_REQUEST_DECISION, {"decision": verdict, "reason": cause})
        return self.touch()

    cdef int note_upstream(self, object connection) except -1:
        return self.note_dial(connection.endpoint, getattr(connection, "served", 0) == 1)

    cdef int note_dial(self, object endpoint, bint is_new) except -1:
        self.acquired = self.since_began()
        # doubles in tests have no more than an endpoint
        self.upstream_id = getattr(endpoint, "number", None)
        self.upstream_address = getattr(endpoint, "peer", None)
        if is_new:
            self.dialled = getattr(endpoint, "dial_seconds", -1.0)
            self.tls = getattr(endpoint, "tls_seconds", -1.0)
        return 0

    # ---- handing over

    cdef int deliver(self) except -1:
        cdef FlowFacts facts = FlowFacts.__new__(FlowFacts)
        self.add_piece()
        facts.flow_id = self.flow_id
        facts.is_over = self.is_over
        facts.is_secret = self.is_secret
        facts.began = self.began
        facts.started = self.started
        facts.took = self.ended
        facts.outcome = -1
        facts.protocol = self.protocol
        facts.stream_id = self.stream_id
        facts.answered_by = self.answered_by
        facts.request_size = self.request_size
        facts.response_size = self.response_size
        facts.request_kept = self.request_kept
        facts.response_kept = self.response_kept
        facts.timings = (self.decided, self.acquired, self.dialled, self.tls, self.sent, self.first_byte, self.ended)
        facts.upstream_address = self.upstream_address
        facts.upstream_id = self.upstream_id
        facts.response_headers = self.own_headers
        facts.pieces = () if self.pieces is None else tuple(self.pieces)
        facts.messages = () if self.messages is None else tuple(self.messages)
        facts.octets = self.held
        self.recorder.held -= self.held
        self.held = 0
        self.pieces = self.messages = None
        if self.exchange is not None:
            self.exchange.describe_flow(facts)
        elif self.describe is not None:
            self.describe(facts)
        self.recorder.on_flow(self, facts)
        return 0

    cdef int end(self) except -1:
        if self.is_over:
            return 0
        self.is_over = True
        self.ended = self.since_began()
        if self.recorder.flows or self.recorder.wants(TOLD_STREAM_CLOSED):
            self.deliver()
        # they refer to us
        self.exchange = None
        self.describe = None
        self.turns = None
        return 0

    # ---- for Python

    def change(self):
        """State that something has changed: an update follows soon."""
        self.touch()

    def note_endpoint(self, endpoint):
        """Note the upstream's connection, which was made for this flow."""
        self.note_dial(endpoint, True)

    def finish(self):
        """State that the flow has ended; once."""
        self.end()


@cython.final
cdef class FlowFacts:
    """A flow as it stands at one moment."""


cdef FlowRecording new_flow_recording(object recorder, ExchangeCallbacks exchange, int64_t flow_id, double began):
    cdef FlowRecording recording = FlowRecording.__new__(FlowRecording)
    recording.recorder = <Recorder>recorder
    recording.recorder.made += 1
    recording.exchange = exchange
    recording.flow_id = flow_id
    recording.began = began
    recording.started = time() - monotonic() + began
    recording.decided = recording.acquired = recording.dialled = recording.tls = -1.0
    recording.sent = recording.first_byte = recording.ended = -1.0
    recording.touch()
    return recording
