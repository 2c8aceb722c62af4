# What a handler's answer to a hook that decides means.

from soth_mitm._dataplane.http.settings cimport Settings


cdef enum Judgement:
    JUDGED_ALLOW = 0
    JUDGED_BLOCK           # with the decision's own response
    JUDGED_RESPOND         # the same, counted as answered
    JUDGED_FORWARD         # changed, as the decision says
    JUDGED_ABORT           # no answer, as the decision's `how` says
    JUDGED_UNDECIDED       # the hook failed, and failure_policy lets the request go
    JUDGED_NO_DECISION     # what follows is not forwarded: judgement_text() says why
    JUDGED_FAILED
    JUDGED_FAILED_BLOCK
    JUDGED_FAILED_ABORT    # the hook failed, and handler.recover_from_panics is off


# The same of an answer to on_response_head and on_response_body
cdef enum ResponseJudgement:
    RESPONSE_JUDGED_PASS = 0
    RESPONSE_JUDGED_UNFILTERED     # and filter_stream_chunk is not asked
    RESPONSE_JUDGED_HOLD
    RESPONSE_JUDGED_CHANGE
    RESPONSE_JUDGED_REPLACE
    RESPONSE_JUDGED_BLOCK
    RESPONSE_JUDGED_UNDECIDED      # the hook failed, and failure_policy lets the response pass
    RESPONSE_JUDGED_NO_DECISION    # what follows does not pass: judgement_text() of judge_failure() says why
    RESPONSE_JUDGED_FAILED


cdef int judge(Settings settings, object decision) except -1
cdef int judge_failure(Settings settings, object error) except -1      # of a hook that raised, or was late
cdef int judge_response(Settings settings, object decision) except -1
cdef bytes judgement_text(int judgement)
