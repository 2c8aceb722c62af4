# One client connection that speaks HTTP/1: what is under way on it, and every way in which it can end. `responding` and `exchange` move
# it on.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.exchange.flow cimport Flow
from soth_mitm._dataplane.http.hooks cimport Suspended
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.upstream.pinned cimport Pin
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.upstream.pool cimport Upstream
from soth_mitm._dataplane.exchange.relay cimport Tunnel


cdef enum Sending:
    SENDING_HEAD = 0       # between requests, or inside a request's head
    SENDING_CONNECT        # on_connect has suspended
    SENDING_COLLECT        # the body is collected, because the decision wants it
    SENDING_DECIDE         # on_request has suspended
    SENDING_CLAIM          # waiting for an upstream connection
    SENDING_RELAY          # the head is on its way, the body follows as it comes
    SENDING_SENT


cdef enum Answering:
    ANSWERING_NONE = 0     # nothing is expected from an upstream
    ANSWERING_HEAD
    ANSWERING_RELAY
    ANSWERING_DONE


cdef enum Late:
    LATE_IDLE = 1          # no next request: closed quietly
    LATE_HEAD              # a head that does not end: 408
    LATE_UPLOAD            # a request body that stopped: 408, or 504 when it is the upstream that takes no more of it; or cut
    LATE_COLLECT           # the decision is taken on what has arrived
    LATE_CLAIM             # no upstream connection: 503
    LATE_RESPONSE          # no response head: 504
    LATE_DOWNLOAD          # a response body that stopped: cut
    LATE_READER            # the client does not read: cut
    LATE_HALF_CLOSED       # the client has ended its direction and nothing came for it: 504, or cut


# The state of one client connection that speaks HTTP/1, and how it ends
cdef class Conversation(EndpointCallbacks):
    cdef Settings settings
    cdef Endpoint client
    cdef Upstream upstream             # of the current flow, from its grant to its end
    cdef Pin pin                       # an upstream connection that only this client uses; None: none
    cdef object on_end                 # called once: the connection is gone and every hook has returned
    cdef Tunnel tunnel                 # after 101

    cdef Flow flow
    cdef int64_t upstream_bytes_before     # what the connection had sent us before this flow
    cdef Sending sending
    cdef Answering answering
    cdef Deadline client_deadline
    cdef Deadline upstream_deadline
    cdef Deadline reader_deadline
    cdef int64_t reader_took           # what the client had taken when its reader's deadline was set
    cdef Deadline half_closed          # made when the client has ended its direction
    cdef int64_t half_closed_at        # what it had been sent then
    cdef Py_ssize_t unsettled          # flows that have not ended or whose hooks have not, and a suspended on_request
    cdef Suspended asking              # that on_connect
    cdef bint keep                     # the client connection goes on after this flow
    cdef bint answered                 # the client has the head of a final response
    cdef bint is_paced                 # the handler's queue is full
    cdef bint over                     # nothing is read or relayed any more
    cdef bint told_end                 # on_end was called
    cdef bint is_due                   # the loop will call take_turn()
    cdef bint is_behind                # more lies in the upstream's read buffer than was relayed in one turn

    # what responding and exchange do
    cdef int advance(self) except -1
    cdef int decide(self) except -1
    cdef int response_done(self) except -1
    cdef int upstream_gone(self, object error) except -1
    cdef int next_request(self) except -1      # the flow has ended and the connection goes on

    cdef bint has_enough(self) noexcept        # whether the client is not to be read from now
    cdef int end_wait(self) except -1          # of a request that is decided on as it is; 1: the connection has ended meanwhile
    cdef bint owes_continue(self) noexcept     # the upstream: the client waits for its 100 and has heard nothing
    cdef int await_upload(self) except -1      # set the deadline of what is left of the request
    cdef int send_no_more(self) except -1      # the upstream does not want the rest of what was collected

    # ours; or, when a response has begun, the connection's end: in order if that response was given whole
    # `text` is the body as it is; without headers, None, it is a line for people and ends like one
    cdef int answer(self, int status, bytes text, object headers) except -1
    cdef int explain(self, int status, bytes text) except -1
    cdef int take_no_more(self) except -1      # of a request that has its whole response: end, but let that arrive
    cdef int refuse(self, int status, bytes text) except -1                    # the same, counted as the client's fault
    cdef int reject(self) except -1                                            # a body over body.max_size_bytes
    cdef int fail_upstream(self, int status, bytes text) except -1             # the same, counted as the upstream's
    cdef bint is_pinned(self) noexcept         # the current flow's upstream is the pinned one
    cdef int use_pin(self) except -1           # 1: the current request goes over the pinned connection, or could not
    cdef int part_with(self, Upstream upstream, Flow flow) except -1   # the flow has ended on it
    cdef int end_flow(self) except -1
    cdef int cut(self, object error) except -1         # now: the client is gone, or takes nothing
    cdef int cut_short(self, object error) except -1   # its client is given what was relayed before, and can tell that it is not all
    cdef int note_cut(self, object error) except -1
    cdef int drop_upstream(self) except -1
    cdef int stop(self) except -1
    cdef int leave(self) except -1             # close the client's connection in order, and stop
    cdef int check_end(self) except -1
    cdef bint reads_ahead(self) noexcept       # the rest of the response is read although the client does not take it
    cdef bint can_repeat(self) noexcept        # the request could be sent again, as far as it is for us and it to say
    cdef int may_retry(self) except -1
    cdef int serve_half_closed(self) except -1
    cdef int64_t taken_by_reader(self) except -1
    cdef int await_reader(self) except -1
    cdef int later(self) except -1             # advance in another turn of the loop, so that others have theirs
    cdef int next_head(self) except -1         # go on with a client that was held between two requests
    cdef int go_on(self) except -1             # read on from an upstream that was held
