# The states of an exchange and what moves them, as tables; and its deadlines, as a table. The drawings in docs/architecture.md are made
# from the tables.


cdef enum RequestState:
    REQUEST_NEW = 0
    REQUEST_ROUTE          # on_connect has suspended
    REQUEST_COLLECT        # the body is collected, because the decision wants it
    REQUEST_DECIDE         # on_request has suspended, or a long body is being decoded for it
    REQUEST_RESOLVE        # waiting for the value of a credential
    REQUEST_ACQUIRE        # waiting for an upstream's stream
    REQUEST_RELAY          # the head is on its way, the body follows as it comes
    REQUEST_SENT           # all of it left, or nothing of it is sent any more
    REQUEST_ENDED
    REQUEST_STATES


cdef enum RequestInput:
    INPUT_ASK_ROUTE = 0
    INPUT_COLLECT
    INPUT_DECIDE
    INPUT_RESOLVE
    INPUT_ACQUIRE
    INPUT_SEND             # there is a stream for it
    INPUT_SENT
    INPUT_ANSWER           # with a response of ours
    INPUT_RETRY
    INPUT_END
    REQUEST_INPUTS


cdef enum ResponseState:
    RESPONSE_NONE = 0      # nothing is expected from an upstream
    RESPONSE_HEAD
    RESPONSE_DECIDE        # on_response_head decides
    RESPONSE_COLLECT       # the body is collected, because on_response_body wants it
    RESPONSE_DECIDE_BODY   # on_response_body decides
    RESPONSE_RELAY         # the client has the head of the final response, the body follows as it comes
    RESPONSE_DONE
    RESPONSE_SWITCHED      # to another protocol (101)
    RESPONSE_STATES


cdef enum ResponseInput:
    INPUT_EXPECT = 0       # the request's head has left
    INPUT_BEGIN            # the final head came, or one of ours whose body follows
    INPUT_COMPLETE
    INPUT_ANSWERED         # with a response of ours
    INPUT_AGAIN            # the request is sent again
    INPUT_SWITCH
    INPUT_DECIDE_HEAD      # the final head came, and the handler is asked
    INPUT_HOLD             # it wants the body
    INPUT_DECIDE_BODY      # which is here, or as much of it as will be
    INPUT_OWN              # the handler gave another body
    RESPONSE_INPUTS


# The state that follows, or -1: the input is a mistake in that state
cdef int next_request_state(int state, int event) noexcept nogil
cdef int next_response_state(int state, int event) noexcept nogil


cdef enum Stage:
    STAGE_COLLECT = 1      # the decision is taken on what has arrived
    STAGE_UPLOAD           # the request's body does not move
    STAGE_ACQUIRE          # no upstream's stream
    STAGE_RESPONSE         # no response head
    STAGE_DOWNLOAD         # the response's body does not move
    STAGE_HOLD             # on_response_body is asked about what has arrived


# What to do when a time is over. A stage may end in several ways; Exchange.on_deadline picks the one that fits
cdef enum Expiry:
    EXPIRY_UPLOAD = 0
    EXPIRY_UPLOAD_NOT_TAKEN
    EXPIRY_NO_CONTINUE
    EXPIRY_ACQUIRE
    EXPIRY_RESPONSE
    EXPIRY_DOWNLOAD
    EXPIRY_HALF_CLOSED
    EXPIRY_HTTP2_RESPONSE      # the same as EXPIRY_RESPONSE and EXPIRY_DOWNLOAD, of an upstream's stream that is one of several
    EXPIRY_HTTP2_DOWNLOAD
    EXPIRY_HTTP2_NO_STREAMS    # instead of EXPIRY_ACQUIRE: there is a connection, whose upstream allows no stream
    EXPIRIES


cdef enum ExpiryAction:
    EXPIRE_ANSWER = 0      # with a status and a text of ours
    EXPIRE_TRUNCATE        # the client gets what was relayed


cdef enum ExpiryCounter:
    COUNT_NOTHING = 0
    COUNT_REFUSED          # the client's fault
    COUNT_UPSTREAM_TIMEOUT

# (ExpiryAction, status, ExpiryCounter, text for people)
cdef tuple expiry_rule(int expiry)
