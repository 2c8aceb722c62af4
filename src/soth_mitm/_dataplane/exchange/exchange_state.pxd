# What an exchange is: everything that it keeps, its states and deadlines, and what an observer is told of it. The states and what moves
# them are in states.pyx.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.body_buffer cimport BodyCopy, BufferedBody
from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.credentials cimport CredentialTerms, MessageTerms, UploadSearch
from soth_mitm._dataplane.exchange.flow_recording cimport FlowRecording
from soth_mitm._dataplane.exchange.hook_queue cimport HookQueue
from soth_mitm._dataplane.exchange.message_tap cimport MessageTap
from soth_mitm._dataplane.exchange.own_body cimport OwnBody
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.exchange.staged_content cimport StagedContent
from soth_mitm._dataplane.exchange.states cimport REQUEST_ENDED, RESPONSE_DONE, RequestInput, RequestState, ResponseInput, ResponseState
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel
from soth_mitm._dataplane.exchange.taps cimport FrameTap
from soth_mitm._dataplane.http.counters cimport END_ANSWERED, FlowEnd
from soth_mitm._dataplane.http.hooks cimport Hooks, Suspended
from soth_mitm._dataplane.http.messages cimport RawRequest, RawResponse
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream
from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.upstream.pool cimport OriginPool
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.redactor cimport SearchedStrings


# What an observer is told of an exchange, and what became of its decision; observe/observation.py has the same numbers
cdef enum ExchangeEvent:
    EXCHANGE_DECIDED = 0
    EXCHANGE_ANSWERED          # the head of the upstream's final response
    EXCHANGE_ENDED


cdef enum Verdict:
    VERDICT_NONE = 0       # the handler was not asked
    VERDICT_ALLOWED
    VERDICT_BLOCKED
    VERDICT_FAILED         # nothing was forwarded
    VERDICT_IGNORED        # a block in monitor mode
    VERDICT_UNDECIDED      # the handler failed, and failure_policy let the request go
    VERDICT_ANSWERED
    VERDICT_ABORTED
    VERDICT_OTHER_IGNORED  # another decision in monitor mode
    VERDICT_CHANGED        # forwarded, and not as it came


# The same of the decision about the response
cdef enum ResponseVerdict:
    RESPONSE_NOT_ASKED = 0
    RESPONSE_PASSED
    RESPONSE_CHANGED
    RESPONSE_REPLACED
    RESPONSE_BLOCKED
    RESPONSE_FAILED        # it was not relayed
    RESPONSE_UNDECIDED     # the handler failed, and failure_policy let the response pass


# What moving content came to
cdef enum Moved:
    MOVED_SOME = 0         # no more is here that can be taken now
    MOVED_ALL              # the message is complete
    MOVED_NONSENSE         # it is malformed; the source's error_text() says how
    # it is longer than it may be (body.overflow, upstream.h2_response_overflow_mode); what made it so was taken and went nowhere
    MOVED_OVER
    MOVED_MISDIRECTED      # it has what may not go where it goes; what made it so was taken and went nowhere
    MOVED_MORE             # there is more, which would take too long: go on in another turn of the loop


cdef enum:
    MOST_PIECES = 512      # of content that are moved in one turn of the loop


cdef class ExchangeState(ExchangeCallbacks):
    cdef Hooks hooks                   # None: the handler does not see this exchange
    cdef HttpConnection connection     # the client's
    cdef Stream client
    cdef Stream upstream               # from its grant to its end
    cdef Route route
    cdef Route way                     # that the request takes, from the decision on: its route, unless the handler sends it elsewhere
    cdef OriginPool pool               # that is asked for a stream: the route's, or its fallback
    cdef int64_t id
    cdef RequestState request_state
    cdef ResponseState response_state
    cdef bint has_ended                # the handler was told the last of it
    cdef bint is_settled               # and its last hook has returned
    cdef bint is_running               # advance() is at work
    cdef bint runs_again
    cdef bint is_turn_due              # the loop will call take_turn()
    cdef bint is_behind                # more of the response lies here than was relayed in one turn
    cdef bint is_lingering             # the time in which the upstream may hear the rest of the request is running out
    cdef bint is_last                  # the client's connection is of no use for another request
    cdef int pressure                  # PauseReason bits: why less is to be read
    cdef int pending_calls             # calls whose end is awaited beside the queue: hooks that decide, decoding threads, bodies
    cdef Suspended asking              # a hook that decides and has suspended

    # request
    cdef Py_ssize_t head_octets        # of all heads here, as the budget counts them
    cdef Head request                  # as the client sent it
    cdef Head sent                     # as an upstream is sent it: the same, unless the handler changed it
    cdef frozenset decided_names       # fields that the handler set or removed, which no trailer brings back; None: there are none
    cdef OwnBody own_request           # the body that it is sent with in place of its own; None: it keeps its own
    cdef BufferedBody buffered         # the body, where the decision waits for it; None: it was not collected, or is let go
    cdef BodyCopy request_copy         # of its content, where it is shown after it has passed; or None
    cdef bytes request_trailers
    cdef RawRequest request_view       # what the handler sees of it
    cdef bint has_body
    cdef bint keep_upgrade             # it asks for another protocol on its connection, which is relayed
    cdef bint sent_continue            # we answered Expect: 100-continue ourselves
    cdef bint retried
    cdef bint is_bounded               # a body over the limit is refused, also while it is streamed on
    cdef bint asks_later               # monitor mode: on_request is still to be called
    cdef bint is_decided_at_head       # before its body, which is not kept
    cdef bint request_is_wire          # it goes on as the bytes that came
    cdef bint filters_request          # its content is to pass through filter_stream_chunk

    # credentials; all None without any
    cdef CredentialTerms terms         # of the way that the request takes
    cdef Head filled                   # as an upstream is sent it in place of `sent`, with values in it; for its writer alone
    cdef SearchedStrings body_strings  # placeholders that the body may have, each with what it leaves as
    cdef int64_t filled_length         # of the body with the values in it
    cdef UploadSearch upload_search    # that the body passes
    cdef Py_ssize_t search_held        # bytes that it holds, as the budget counts them
    cdef bytes plain_body              # the whole body without its content coding, while it is looked into; None: it has none
    cdef bint leaves_plain             # the body goes on without its content coding, with values in it
    cdef MessageTerms message_terms    # for the messages of the WebSocket that it opens; None: they are not searched

    # response
    cdef OwnBody own_answer            # the body of a response of the handler, where it is sent as it comes; or None
    cdef object answer_headers         # of that response
    cdef Head response                 # as the upstream sent it
    cdef Head relayed                  # as the client is sent it: the same, unless the handler changed it; None: not yet, or not at all
    cdef BufferedBody held_body        # its body, where on_response_body decides, as long as some of it is to be sent; None: there is none
    cdef frozenset response_names      # the handler has set or removed these: no trailer brings them back; or None
    cdef int64_t own_length            # of the body that the handler gave in place of the upstream's, or ANY_LENGTH
    cdef object lost                   # what ended the upstream's stream while a decision about the response waits; or None
    cdef bint is_held                  # such a decision waits, or the body for it
    cdef BodyCopy response_copy        # of the response's content; None: not copied
    cdef bytes response_trailers
    cdef int64_t response_total        # bytes of content
    cdef bint is_streaming             # SSE, NDJSON, gRPC: shown at its head, then frame by frame
    cdef RawResponse response_view     # as the handler was shown it at its head; its trailers are still to come
    cdef bint response_is_wire
    cdef bint is_unfiltered            # the handler wants to decide on no more frames of this flow
    cdef object response_note          # that its decision about the response left for what it is asked next; or None
    cdef int interims                  # interim responses to this request

    # made when they are needed
    cdef HookQueue queue
    cdef BudgetShare share
    cdef FrameTap down                 # the response's frames; None: they are not shown
    cdef FrameTap up                   # the request's
    cdef StagedContent down_stages     # that the response's content passes through; None: it goes on as it comes
    cdef StagedContent up_stages       # the request's
    cdef int64_t up_at                 # how much has been framed of what was collected of it, or is the handler's and can be sent again
    cdef MessageTap from_client        # a WebSocket's messages; None: they are not shown
    cdef MessageTap from_upstream
    cdef StreamTunnel tunnel           # that they pass through
    cdef bint is_websocket             # one has begun
    cdef tuple websocket_end           # what StreamTunnel.summary() has said, or None
    cdef Deadline client_deadline      # of the request: STAGE_COLLECT, STAGE_UPLOAD
    cdef Deadline upstream_deadline    # of what is expected from upstream: STAGE_ACQUIRE, STAGE_RESPONSE, STAGE_HOLD, STAGE_DOWNLOAD

    cdef double began                  # when the request's head had come
    cdef bint has_answered             # the client was sent the head of a final response
    cdef FlowEnd fault                 # what stands in the way of an answer, the first of its kind; END_ANSWERED: nothing

    cdef FlowRecording recording       # what event sinks are told of it; None: there are none

    # for an observer
    cdef int verdict
    cdef int response_verdict
    cdef int status                    # that the client was told; 0: none
    cdef object cause                  # bytes or an exception: why the client has not the upstream's whole answer; None: it has

    # Nothing is read or relayed any more
    cdef inline bint is_over(self) noexcept:
        return self.request_state == REQUEST_ENDED

    # A head that stays here until the last hook has returned
    cdef inline void charge_head(self, Head head) noexcept:
        cdef Py_ssize_t octets = len(head.raw)
        self.head_octets += octets
        self.settings.arena.budget.take(octets)

    # What kept it from being answered, if nothing has yet
    cdef inline void note_fault(self, FlowEnd fault) noexcept:
        if self.fault == END_ANSWERED and self.response_state != RESPONSE_DONE:
            self.fault = fault

    cdef int count_first_byte(self) noexcept
    cdef int count_end(self) except -1                 # the flow is over
    cdef FlowEnd flow_end(self) noexcept
    cdef int flow_protocol(self) except -1             # FlowProtocol

    cdef int move_request(self, RequestInput event) except -1
    cdef int move_response(self, ResponseInput event) except -1
    cdef bint has_response(self) noexcept              # the client has the head of a final response
    # An Exchange has these: move both directions as far as they go; the same in another turn of the loop
    cdef int advance(self) except -1
    cdef int take_later(self) except -1

    cdef int set_client_deadline(self, DeadlineQueue queue, int stage) except -1
    cdef int set_upstream_deadline(self, DeadlineQueue queue, int stage) except -1
    cdef int await_upload(self) except -1
    # For the upstream's head, and for its content to go on
    cdef int await_response(self) except -1
    cdef int await_download(self) except -1
    cdef int clear_upstream_deadline(self) except -1
    cdef int clear_deadlines(self) except -1

    cdef int strip_alternatives(self, Head head) except -1
    cdef int tell_observer(self, ExchangeEvent event) except -1
    cdef str grpc_status(self)                         # as the upstream said it, in its head or its trailers; None if it did not
