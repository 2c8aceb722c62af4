# The states of HTTP/1 connections and what moves them, as tables.


cdef enum ServerState:
    SERVER_HEAD = 0        # between requests, or inside a request's head
    SERVER_EXCHANGE
    SERVER_TUNNEL          # after 101
    SERVER_CLOSED          # nothing is read or relayed any more
    SERVER_STATES


cdef enum ServerInput:
    SERVER_OPEN = 0        # a head is complete
    SERVER_DONE            # the exchange has ended and the connection goes on
    SERVER_SWITCH
    SERVER_CLOSE
    SERVER_INPUTS


cdef enum ClientState:
    CLIENT_IDLE = 0        # silent, or it is closed
    CLIENT_OPEN            # an exchange has its stream, and has sent no request
    CLIENT_HEAD            # a response head is expected
    CLIENT_CONTENT         # the final head came
    CLIENT_CLOSED
    CLIENT_STATES


cdef enum ClientInput:
    CLIENT_ACQUIRE = 0
    CLIENT_REQUEST
    CLIENT_FINAL_HEAD
    CLIENT_RELEASE
    CLIENT_CLOSE
    CLIENT_INPUTS


# The state that follows, or -1: the input is a mistake in that state
cdef int next_server_state(int state, int event) noexcept nogil
cdef int next_client_state(int state, int event) noexcept nogil
