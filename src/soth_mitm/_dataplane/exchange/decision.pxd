# What a handler's answer to on_request means.

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


cdef int judge(Settings settings, object decision) except -1
cdef int judge_failure(Settings settings, object error) except -1
cdef bytes judgement_text(int judgement)
