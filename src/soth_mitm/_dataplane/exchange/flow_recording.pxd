# What event sinks are told of flows: what all sinks of a proxy want (`Recorder`), what is noted of one flow while it lasts
# (`FlowRecording`), and a flow as it stands at one moment (`FlowFacts`). Without sinks none of these is made.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks


# The events that the data plane tells of, as places of bits; soth_mitm.observe.flow_event.FlowEventKind has the same order
cdef enum FlowEventPlace:
    TOLD_TLS_STARTED = 4
    TOLD_TLS_SUCCEEDED
    TOLD_TLS_FAILED
    TOLD_REQUEST_HEADERS = 8
    TOLD_REQUEST_DECISION
    TOLD_REQUEST_BODY_CHUNK
    TOLD_RESPONSE_HEADERS
    TOLD_RESPONSE_BODY_CHUNK
    TOLD_GRPC_REQUEST_HEADERS
    TOLD_GRPC_RESPONSE_HEADERS
    TOLD_GRPC_RESPONSE_TRAILERS
    TOLD_SSE_EVENT
    TOLD_WEBSOCKET_OPENED
    TOLD_WEBSOCKET_FRAME
    TOLD_WEBSOCKET_TURN_STARTED
    TOLD_WEBSOCKET_TURN_COMPLETED
    TOLD_WEBSOCKET_CLOSED
    TOLD_STREAM_CLOSED = 24


# What a flow is; soth_mitm.observe.flow_record.FlowKind has the same order
cdef enum FlowKind:
    FLOW_IS_HTTP = 0
    FLOW_IS_WEBSOCKET
    FLOW_IS_TUNNEL
    FLOW_IS_REFUSED


cdef enum AnsweredBy:
    ANSWERED_BY_NOBODY = 0
    ANSWERED_BY_UPSTREAM
    ANSWERED_BY_HANDLER
    ANSWERED_BY_PROXY


cdef class Recorder:
    cdef object loop
    cdef object on_flow                # on_flow(FlowRecording, FlowFacts)
    cdef object on_event               # on_event(FlowRecording, place, attributes)
    cdef readonly int64_t events       # bits: what is wanted
    cdef readonly bint flows
    cdef readonly Py_ssize_t content   # bytes of each body
    cdef readonly bint messages
    cdef readonly Py_ssize_t held      # bytes of content that flows have kept since their last update
    cdef readonly int64_t made         # recordings
    cdef list changed                  # FlowRecordings that have changed since their last update
    cdef bint is_due                   # the loop will call tell_changed()

    cdef inline bint wants(self, int place) noexcept:
        return self.events >> place & 1

    # Messages of WebSockets are to be read
    cdef bint reads_messages(self) noexcept


cdef class FlowRecording:
    cdef readonly Recorder recorder
    cdef ExchangeCallbacks exchange    # whose flow it is, until it has ended
    cdef public object describe        # describe(facts) fills in what is known, of a flow that is no exchange; None
    cdef public object route           # of an exchange: Route
    cdef public object connection      # what is recorded of its connection, as soon as that is known
    cdef public object turns           # of a WebSocket whose turns are told, or None
    cdef readonly int64_t flow_id
    cdef readonly double began         # by time.monotonic()
    cdef readonly double started       # seconds since 1970
    cdef readonly bint is_over
    cdef bint is_changed               # it is among recorder.changed
    cdef bint is_secret                # neither its content nor its fields may be told: the policy does not intercept it
    cdef public int64_t event_count    # events of it so far
    cdef public object state           # in the grammar of events, or None
    cdef public int protocol           # FlowProtocol
    cdef public bint is_grpc           # it asks for gRPC
    cdef public int64_t stream_id      # of HTTP/2, or 0

    cdef readonly int64_t request_size
    cdef readonly int64_t response_size
    cdef readonly int64_t request_kept
    cdef readonly int64_t response_kept
    cdef int64_t sse_events
    cdef int answered_by               # AnsweredBy
    cdef object own_headers            # of a response of ours: pairs of bytes
    cdef bint has_noted_body           # that was collected
    cdef bint has_told_request
    cdef public object upstream_address
    cdef public object upstream_id

    # seconds since `began`, or lengths; -1: there is none
    cdef double decided
    cdef double acquired
    cdef double dialled
    cdef double tls
    cdef double sent
    cdef double first_byte
    cdef double ended

    # content since the last update
    cdef list pieces                   # (seconds, to the client, bytes), or None
    cdef list run                      # bytes that came together, not in `pieces` yet
    cdef double run_at
    cdef Py_ssize_t run_size
    cdef bint run_to_client
    cdef list messages                 # (seconds, to the client, opcode, bytes, size), or None
    cdef Py_ssize_t held

    cdef double since_began(self) noexcept
    # Something has changed: an update is to follow within a tenth of a second
    cdef int touch(self) except -1
    # An event that at least one sink wants
    cdef int tell(self, int place, dict attributes) except -1
    # Bytes have passed that are not looked at
    cdef int count(self, bint to_client, Py_ssize_t length) except -1
    # Content of a body has passed, or has come and been kept
    cdef int note_content(self, bint to_client, const char* data, Py_ssize_t length) except -1
    # A message of a WebSocket has passed; `size` of it, whatever is here
    cdef int note_message(self, bint to_client, int opcode, bytes data, int64_t size) except -1
    # The upstream's connection; what it took to make it is told of the first flow that it carries
    cdef int note_upstream(self, object connection) except -1
    cdef int note_dial(self, object endpoint, bint is_new) except -1
    cdef int note_decision(self, int verdict, object cause) except -1
    cdef int deliver(self) except -1         # the flow as it stands, with the content since the last time
    cdef int end(self) except -1               # and for the last time
    cdef int add_piece(self) except -1
    cdef int hold(self, Py_ssize_t octets) except -1


# A flow as it stands. Attributes that are -1, None or empty say nothing
cdef class FlowFacts:
    cdef public int64_t flow_id
    cdef public int kind               # FlowKind
    cdef public object meta            # ConnectionMeta
    cdef public bint is_over
    cdef public bint is_secret
    cdef public double began
    cdef public double started
    cdef public double took
    cdef public int outcome            # FlowEnd
    cdef public object cause           # bytes, str or an exception
    cdef public int verdict
    cdef public int response_verdict
    cdef public int protocol           # FlowProtocol
    cdef public object pattern
    cdef public str scheme
    cdef public str authority
    cdef public bytes method
    cdef public bytes path
    cdef public str http_version
    cdef public str upstream_http_version
    cdef public int64_t stream_id
    cdef public int status
    cdef public int answered_by        # AnsweredBy
    cdef public object request_headers     # Headers
    cdef public object request_trailers
    cdef public object response_headers    # Headers, or pairs of bytes
    cdef public object response_trailers
    cdef public int64_t request_size
    cdef public int64_t response_size
    cdef public int64_t request_kept
    cdef public int64_t response_kept
    cdef public tuple timings          # decided, acquired, dialled, tls, sent, first_byte, ended
    cdef public object upstream_address
    cdef public object upstream_id
    cdef public str grpc_status
    cdef public tuple websocket_end    # of StreamTunnel.summary()
    cdef public tuple pieces           # (seconds, to the client, bytes)
    cdef public tuple messages         # (seconds, to the client, opcode, bytes, size)
    cdef public Py_ssize_t octets      # of them, and of the heads


cdef FlowRecording new_flow_recording(object recorder, ExchangeCallbacks exchange, int64_t flow_id, double began)
