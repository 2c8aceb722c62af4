# The states of an endpoint and of its TLS, and what moves them, as tables. The drawings in
# docs/architecture.md are made from the tables.


# The connection, and our direction of it
cdef enum EndpointState:
    ENDPOINT_NEW = 0       # no transport
    ENDPOINT_OPEN
    ENDPOINT_ENDING        # our direction ends as soon as all is written
    ENDPOINT_ENDED         # our direction has ended; the peer's goes on
    ENDPOINT_CLOSING       # nothing more is sent
    ENDPOINT_GONE          # connection_lost came
    ENDPOINT_STATES


cdef enum EndpointInput:
    ENDPOINT_MADE = 0
    ENDPOINT_END_LATER
    ENDPOINT_END
    ENDPOINT_CLOSE
    ENDPOINT_LOST
    ENDPOINT_INPUTS


# The peer's direction
cdef enum ReadingState:
    READING_OPEN = 0
    READING_FIN            # the FIN came, and what came before it is not delivered yet
    READING_ENDED          # on_eof was called for a close_notify; the FIN has not come
    READING_FINISHED       # on_eof was called, and the FIN came
    READING_STATES


cdef enum ReadingInput:
    READING_GET_FIN = 0
    READING_TELL           # on_eof is called
    READING_INPUTS


# What the transport holds of what we gave it
cdef enum BacklogState:
    BACKLOG_NONE = 0
    BACKLOG_SOME
    BACKLOG_FULL           # on_writable(False) was called: send no more
    BACKLOG_STATES


cdef enum BacklogInput:
    BACKLOG_HOLD = 0       # the transport could not write all of it
    BACKLOG_FILL           # it holds too much
    BACKLOG_DRAIN          # all is written
    BACKLOG_INPUTS


cdef enum TlsState:
    TLS_HANDSHAKE = 0
    TLS_FAILED             # a fatal error; nothing is read any more
    TLS_OPEN               # the handshake is complete
    TLS_ENDED              # the peer's close_notify came: no more plaintext
    TLS_SHUT               # ours was written: no more plaintext from us
    TLS_CLOSED             # both
    TLS_STATES


cdef enum TlsInput:
    TLS_SECURE = 0
    TLS_END
    TLS_SHUT_OURS
    TLS_FAIL
    TLS_INPUTS


# The state that follows, or -1: the input is a mistake in that state
cdef int next_endpoint_state(int state, int event) noexcept nogil
cdef int next_reading_state(int state, int event) noexcept nogil
cdef int next_backlog_state(int state, int event) noexcept nogil
cdef int next_tls_state(int state, int event) noexcept nogil
