"""The states of an endpoint and of its TLS, and what moves them, as tables.

`Endpoint` and `TlsEngine` have one function for each machine that changes the state. It looks the
next state up here, and raises on an input that the state does not have.
"""

from soth_mitm._dataplane.memory.transitions cimport next_state, transitions_of

ENDPOINT_STATE_NAMES = ("new", "open", "ending", "ended", "closing", "gone")
ENDPOINT_INPUT_NAMES = ("made", "end_later", "end", "close", "lost")
READING_STATE_NAMES = ("open", "fin", "ended", "finished")
READING_INPUT_NAMES = ("get_fin", "tell")
BACKLOG_STATE_NAMES = ("none", "some", "full")
BACKLOG_INPUT_NAMES = ("hold", "fill", "drain")
TLS_STATE_NAMES = ("handshake", "failed", "open", "ended", "shut", "closed")
TLS_INPUT_NAMES = ("secure", "end", "shut_ours", "fail")

# A row for each state, a column for each input, in the order of the enums
cdef const char* ENDPOINT_TABLE = (
    b"1xxxx"       # new
    b"x2345"       # open
    b"xx345"       # ending
    b"xxx45"       # ended
    b"xxxx5"       # closing
    b"xxxxx"       # gone
)
cdef const char* READING_TABLE = (
    b"12"          # open
    b"x3"          # fin
    b"3x"          # ended
    b"xx"          # finished
)
cdef const char* BACKLOG_TABLE = (
    b"1xx"         # none
    b"x20"         # some
    b"xx0"         # full
)
cdef const char* TLS_TABLE = (
    b"2xx1"        # handshake
    b"xxxx"        # failed
    b"x341"        # open
    b"xx5x"        # ended
    b"x5x1"        # shut
    b"xxxx"        # closed
)


cdef int next_endpoint_state(int state, int event) noexcept nogil:
    return next_state(ENDPOINT_TABLE, ENDPOINT_INPUTS, state, event)


cdef int next_reading_state(int state, int event) noexcept nogil:
    return next_state(READING_TABLE, READING_INPUTS, state, event)


cdef int next_backlog_state(int state, int event) noexcept nogil:
    return next_state(BACKLOG_TABLE, BACKLOG_INPUTS, state, event)


cdef int next_tls_state(int state, int event) noexcept nogil:
    return next_state(TLS_TABLE, TLS_INPUTS, state, event)


def endpoint_transitions():
    """Return the table of a connection and our direction: {state: {input: state that follows}}."""
    return transitions_of(ENDPOINT_TABLE, ENDPOINT_STATE_NAMES, ENDPOINT_INPUT_NAMES)


def reading_transitions():
    """Return the table of the peer's direction: {state: {input: state that follows}}."""
    return transitions_of(READING_TABLE, READING_STATE_NAMES, READING_INPUT_NAMES)


def backlog_transitions():
    """Return the table of what is not written yet: {state: {input: state that follows}}."""
    return transitions_of(BACKLOG_TABLE, BACKLOG_STATE_NAMES, BACKLOG_INPUT_NAMES)


def tls_transitions():
    """Return the table of a TLS engine: {state: {input: state that follows}}."""
    return transitions_of(TLS_TABLE, TLS_STATE_NAMES, TLS_INPUT_NAMES)
