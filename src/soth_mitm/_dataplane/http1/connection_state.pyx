"""The states of HTTP/1 connections and what moves them, as tables."""

from soth_mitm._dataplane.memory.transitions cimport next_state, transitions_of

SERVER_STATE_NAMES = ("head", "exchange", "tunnel", "closed")
SERVER_INPUT_NAMES = ("open", "done", "switch", "close")
CLIENT_STATE_NAMES = ("idle", "open", "head", "content", "closed")
CLIENT_INPUT_NAMES = ("acquire", "request", "final_head", "release", "close")

# A row for each state, a column for each input, in the order of the enums. A digit is the state
# that follows; x: a mistake
cdef const char* SERVER_TABLE = (
    b"1xx3"        # head
    b"x023"        # exchange
    b"xxx3"        # tunnel
    b"xxxx"        # closed
)
cdef const char* CLIENT_TABLE = (
    b"1xxx4"       # idle
    b"x2x04"       # open
    b"xx3x4"       # head
    b"xxx04"       # content
    b"xxxxx"       # closed
)


cdef int next_server_state(int state, int event) noexcept nogil:
    return next_state(SERVER_TABLE, SERVER_INPUTS, state, event)


cdef int next_client_state(int state, int event) noexcept nogil:
    return next_state(CLIENT_TABLE, CLIENT_INPUTS, state, event)


def server_transitions():
    """Return the table of a client's connection: {state: {input: state that follows}}."""
    return transitions_of(SERVER_TABLE, SERVER_STATE_NAMES, SERVER_INPUT_NAMES)


def client_transitions():
    """Return the table of an upstream's connection: {state: {input: state that follows}}."""
    return transitions_of(CLIENT_TABLE, CLIENT_STATE_NAMES, CLIENT_INPUT_NAMES)
