# One request and its response, with everything between that is not traffic: copies and frames for the handler, and the order of its hooks.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http1.framing cimport Body
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.wire.decode cimport Decoder
from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.http.hooks cimport Hook, Hooks
from soth_mitm._dataplane.exchange.body_buffer cimport BufferedBody, BodyCopy
from soth_mitm._dataplane.http.messages cimport RawRequest, RawResponse
from soth_mitm._dataplane.memory.waiter cimport Waiter
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.upstream.pool cimport OriginPool
from soth_mitm._dataplane.memory.view cimport View


# What an observer is told of a flow, and what became of its decision; observe/observation.py has the same numbers
cdef enum FlowEvent:
    FLOW_DECIDED = 0
    FLOW_ANSWERED          # the head of the upstream's final response
    FLOW_ENDED


cdef enum Verdict:
    VERDICT_NONE = 0       # nobody was asked
    VERDICT_ALLOWED
    VERDICT_BLOCKED
    VERDICT_FAILED         # nothing was forwarded
    VERDICT_IGNORED        # a block in monitor mode
    VERDICT_UNDECIDED      # the handler failed, and failure_policy let the request go


# Where the requests of a connection (or, on the proxy port, of one authority) go, and whether the handler sees them
cdef class Route:
    cdef readonly OriginPool pool      # None: refused
    cdef readonly object meta          # ConnectionMeta, with the facts of the upstream connection used last
    cdef readonly object facts         # Upstream.facts of that connection
    cdef readonly object on_facts      # on_facts(meta, facts) -> meta, or None: nobody wants to know
    cdef readonly str scheme
    cdef readonly str authority
    cdef readonly bint observed
    cdef readonly int status           # of the refusal
    cdef readonly bytes reason
    cdef readonly object question      # ConnectTarget that on_connect is to be asked about first; None: nothing is to be asked
    cdef readonly object on_answer     # on_answer(result, error of the hook) -> Route, or None: cut the connection

    cdef int met(self, object facts) except -1     # requests now go over a connection of which that is known


cdef enum:
    FRAMED_AT_ONCE = 2048      # bytes of content: one of them may be a frame, and each frame a call of a hook


# One direction of a stream as it is framed for the handler
cdef class Frames:
    cdef Framer framer                 # None: it has ended, or could not be decoded
    cdef Decoder decoder
    cdef list found                    # framed and not pushed yet
    cdef bytes decoded                 # content that is not framed yet, from `decoded_at` on; None: it all is
    cdef Py_ssize_t decoded_at
    cdef str direction
    cdef int64_t sequence
    cdef Py_ssize_t held               # bytes that the framer holds, as the budget counts them


cdef class Flow(Waiter):
    cdef Settings settings
    cdef Hooks hooks                   # None: the handler does not see this flow
    cdef Waiter owner                   # told when to pace, and when the last hook has returned
    cdef Route route
    cdef int64_t id

    # request
    cdef Head request
    cdef Body request_body
    cdef BufferedBody collected           # the body, where the decision waits for it; None: it was not collected, or is let go
    cdef BodyCopy payload                  # of its content, where it is shown after it has passed; or None
    cdef bytes request_trailers
    cdef RawRequest shown              # what the handler sees of it
    cdef bint upgrade                  # asks for another protocol on this connection
    cdef bint continued                # we answered Expect: 100-continue ourselves
    cdef bint retried
    cdef bint bounded                  # a body over the limit is refused, also while it is streamed on
    cdef bint ask_later                # monitor mode: on_request is still to be called
    cdef bint at_head                  # decided on before its body, which nobody keeps

    # response
    cdef Head response
    cdef Body response_body
    cdef bint unchunked                # its chunks are taken off, and it ends with the connection
    cdef BodyCopy copy                     # of the response's content; None: not copied
    cdef bytes response_trailers
    cdef bint streaming                # SSE, NDJSON, gRPC: shown at its head, then frame by frame
    cdef RawResponse told              # as the handler was shown it at its head; its trailers are still to come
    cdef Frames down                   # of the response; None: nobody is shown its frames
    cdef Frames up                     # of the request
    cdef Py_ssize_t up_at              # how much of what was collected of it has been framed

    # what is kept for the handler
    cdef Py_ssize_t kept               # bytes of it that the budget counts
    cdef bint is_waiting               # for the budget
    cdef bint has_waited               # for long enough: it does not wait again

    # hooks after the decision, one at a time and in order
    cdef object queue                  # deque of (Hook, argument, argument), made when the first one has to wait
    cdef Py_ssize_t queued_bytes
    cdef bint busy                     # a hook of ours is suspended
    cdef Hook called                   # the last one that was called
    cdef bint is_paced
    cdef bint dropping                 # paced for long enough: what does not fit is dropped
    cdef bint ended
    cdef bint is_settled               # the owner was told that the last hook has returned
    cdef Deadline pace

    # for an observer
    cdef double began
    cdef int verdict
    cdef int status                    # that the client was told; 0: none
    cdef object cause                  # bytes or an exception: why the client has not the upstream's whole answer; None: it has

    cdef int take(self, Route route) except -1     # what on_connect was asked about goes that way
    cdef bint conversational(self) except -1
    cdef bint is_repeatable(self) noexcept     # doing it twice does no harm
    cdef Py_ssize_t collect(self, const char* data, Py_ssize_t size) except -1     # how much of it was of the body
    cdef int copy_request(self) except -1      # its content is to be shown though nobody waits for it
    cdef int keep_payload(self, View payload) except -1
    cdef RawRequest show_request(self)
    cdef int ask_afterwards(self) except -1    # monitor mode: before every other hook of the flow, and once
    cdef int ignored(self, object decision) except -1
    cdef int begin_response(self, Head head) except -1
    cdef int stop_alternatives(self, Head head) except -1  # Alt-Svc, where that is to be stripped; before the head is sent on
    cdef int tell_head(self) except -1
    cdef object show_response(self, bytes body)
    # These call no hook: push_frames() does, once the bytes are on their way
    cdef int see_payload(self, View payload) except -1
    cdef int see_frames(self, Frames frames, View payload) except -1
    cdef int see_collected(self) except -1     # what has been sent on of it; 0: more than one turn of the loop may
    cdef int frame_decoded(self, Frames frames) except -1      # as much of it as one turn of the loop may
    cdef bint has_enough_of(self, Frames frames) except -1     # for one turn of the loop
    cdef int begin_upload(self) except -1      # its messages are to be shown, if it is a call
    cdef int end_upload(self) except -1
    cdef int end_frames(self, Frames frames) except -1
    cdef int count_framing(self, Frames frames) except -1
    cdef int end_copies(self) except -1
    cdef int end_response(self, bint whole) except -1
    cdef int end(self) except -1
    cdef int tell_observer(self, FlowEvent event) except -1
    cdef int settle(self) except -1

    cdef int keep(self, Py_ssize_t count) except -1
    cdef int let_go(self, Py_ssize_t count) except -1
    cdef int forget_collected(self) except -1  # it will not be sent again; if it is not sent yet, nothing happens
    cdef int grow(self, bint deciding) except -1   # more is to come of what is kept: wait, if the budget says so
    cdef int wait_no_more(self) except -1

    cdef int cut(self, object error) except -1     # a hook failed, with recovery off: of what has not come it is told nothing but the end
    cdef int call(self, Hook hook, object first, object second) except -1
    cdef int push(self, Hook hook, object first, object second) except -1
    cdef int push_frames(self, Frames frames) except -1
    cdef int spare_request(self) except -1     # memory is scarce: the body that chunks carry is let go
    cdef int begin_pace(self) except -1
    cdef int drain(self) except -1
    cdef int full(self) except -1
