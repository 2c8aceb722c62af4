"""The states of an exchange, what moves them, and its deadlines: each a table.

A state changes in one place (`Exchange.move_request`, `Exchange.move_response`), which looks the next one up here and raises on an input
that the state does not have.
"""

from soth_mitm._dataplane.memory.transitions cimport next_state, transitions_of

REQUEST_STATE_NAMES = ("new", "route", "collect", "decide", "resolve", "acquire", "relay", "sent", "ended")
REQUEST_INPUT_NAMES = ("ask_route", "collect", "decide", "resolve", "acquire", "send", "sent", "answer", "retry", "end")
RESPONSE_STATE_NAMES = ("none", "head", "decide", "collect", "decide_body", "relay", "done", "switched")
RESPONSE_INPUT_NAMES = ("expect", "begin", "complete", "answered", "again", "switch", "decide", "hold", "decide_body", "own")
EXPIRY_NAMES = (
    "upload", "upload_not_taken", "no_continue", "acquire", "response", "download", "half_closed", "http2_response", "http2_download",
    "http2_no_streams",
)

# A row for each state, a column for each input, in the order of the enums. A digit is the state that follows; x: a mistake
cdef const char* REQUEST_TABLE = (
    b"12345xx7x8"   # new
    b"x2345xx7x8"   # route
    b"xx3xxxx7x8"   # collect
    b"xxx45xx7x8"   # decide
    b"xxxx5xx7x8"   # resolve
    b"xxxxx6x7x8"   # acquire
    b"xxxxxx7758"   # relay
    b"xxxxxxx758"   # sent
    b"xxxxxxxxxx"   # ended
)
cdef const char* RESPONSE_TABLE = (
    b"15x6xxxxxx"  # none
    b"x5x6072xxx"  # head
    b"x5x6x7x340"  # decide
    b"xxx6xxxx4x"  # collect
    b"x5x6xxxxx0"  # decide_body
    b"xx6xxxxxxx"  # relay
    b"xxxxxxxxxx"  # done
    b"xxxxxxxxxx"  # switched
)

# What to do when a time is over, in the order of Expiry: action, status, counter, text for people, in which {origin} is the upstream
EXPIRY_RULES = (
    (EXPIRE_ANSWER, 408, COUNT_REFUSED, "the request body stopped arriving (timeouts.body_idle_ms)"),
    (EXPIRE_ANSWER, 504, COUNT_UPSTREAM_TIMEOUT, "the upstream stopped taking the request body (timeouts.body_idle_ms)"),
    (EXPIRE_ANSWER, 504, COUNT_UPSTREAM_TIMEOUT,
     "the upstream neither asked for the request body nor answered (timeouts.body_idle_ms)"),
    (EXPIRE_ANSWER, 503, COUNT_UPSTREAM_TIMEOUT,
     "no upstream connection became free in time (connection_pool.max_connections_per_host)"),
    (EXPIRE_ANSWER, 504, COUNT_UPSTREAM_TIMEOUT, "the upstream did not answer in time (upstream.timeout_ms)"),
    (EXPIRE_TRUNCATE, 0, COUNT_UPSTREAM_TIMEOUT, "the body stopped moving (timeouts.body_idle_ms)"),
    (EXPIRE_ANSWER, 504, COUNT_NOTHING,
     "the client ended its direction, and nothing came for it in time (timeouts.half_closed_client_ms)"),
    (EXPIRE_ANSWER, 504, COUNT_UPSTREAM_TIMEOUT, "the upstream did not answer in time (upstream.h2_header_stage_timeout_ms)"),
    (EXPIRE_TRUNCATE, 0, COUNT_UPSTREAM_TIMEOUT, "the body stopped moving (upstream.h2_body_idle_timeout_ms)"),
    (EXPIRE_ANSWER, 504, COUNT_UPSTREAM_TIMEOUT,
     "{origin} was reached, and allowed no stream of HTTP/2 in time "
     "(its SETTINGS say MAX_CONCURRENT_STREAMS 0; upstream.connect_timeout_ms)"),
)


cdef int next_request_state(int state, int event) noexcept nogil:
    return next_state(REQUEST_TABLE, REQUEST_INPUTS, state, event)


cdef int next_response_state(int state, int event) noexcept nogil:
    return next_state(RESPONSE_TABLE, RESPONSE_INPUTS, state, event)


cdef tuple expiry_rule(int expiry):
    return EXPIRY_RULES[expiry]


def request_transitions():
    """Return the table of a request: {state: {input: state that follows}}."""
    return transitions_of(REQUEST_TABLE, REQUEST_STATE_NAMES, REQUEST_INPUT_NAMES)


def response_transitions():
    """Return the table of a response: {state: {input: state that follows}}."""
    return transitions_of(RESPONSE_TABLE, RESPONSE_STATE_NAMES, RESPONSE_INPUT_NAMES)
