# The states of a stream (RFC 9113 section 5.1) and what each event does in them, as one table. Drawn in
# docs/http2.md, from the same table. There are no reserved states: we never push, and refuse to be pushed to.

from libc.stdint cimport uint32_t


cdef enum StreamState:
    STREAM_IDLE = 0
    STREAM_OPEN
    STREAM_LOCAL_ENDED         # half-closed (local): we have said all
    STREAM_REMOTE_ENDED        # half-closed (remote): the peer has
    # closed, by what closed it
    STREAM_ENDED               # both have said all
    STREAM_WE_RESET
    STREAM_PEER_RESET
    STREAM_STATES


cdef enum StreamEvent:
    EVENT_RECEIVE_HEADERS = 0
    EVENT_RECEIVE_DATA
    EVENT_RECEIVE_END          # the flag END_STREAM, behind one of the two above
    EVENT_RECEIVE_RESET
    EVENT_RECEIVE_WINDOW
    EVENT_RECEIVE_PRIORITY
    EVENT_SEND_HEADERS
    EVENT_SEND_DATA
    EVENT_SEND_END
    EVENT_SEND_RESET
    EVENT_SEND_WINDOW
    STREAM_EVENTS


# What an event does that leads to no state
cdef enum StreamAnswer:
    ANSWER_IGNORE = -1         # nothing: it crossed with what closed the stream
    ANSWER_CLOSED = -2         # a stream error STREAM_CLOSED
    ANSWER_CLOSED_FATAL = -3   # a connection error STREAM_CLOSED
    ANSWER_PROTOCOL = -4       # a connection error PROTOCOL_ERROR
    ANSWER_BUG = -5            # we must not do that


# The state that `event` leads to, or a StreamAnswer
cdef int next_state(int state, int event) noexcept nogil
# Change a state as the table says; an answer leaves it as it is and is returned, otherwise 0
cdef int change_state(int* state, int event) noexcept nogil

cdef inline bint is_closed(int state) noexcept nogil:
    return state >= STREAM_ENDED

cdef inline bint may_send(int state) noexcept nogil:
    return state == STREAM_OPEN or state == STREAM_REMOTE_ENDED

cdef inline bint may_receive(int state) noexcept nogil:
    return state == STREAM_OPEN or state == STREAM_LOCAL_ENDED


cdef enum:
    CLOSED_MEMORY = 128


cdef struct ClosedStream:
    uint32_t stream
    int state


# How the streams that closed last were closed: what may still come for them depends on it
cdef struct ClosedStreams:
    ClosedStream ring[CLOSED_MEMORY]
    int count
    int next
    uint32_t forgotten         # the highest stream whose place was taken by another


cdef void remember_closed(ClosedStreams* closed, uint32_t stream, int state) noexcept nogil
# STREAM_ENDED, STREAM_WE_RESET or STREAM_PEER_RESET; STREAM_IDLE: it is not remembered
cdef int recall_closed(const ClosedStreams* closed, uint32_t stream) noexcept nogil
