"""What a handler's answer to a hook that decides means. Nothing passes by mistake: a value that is no decision stops the message."""

from soth_mitm._dataplane.http.settings cimport Settings


JUDGEMENTS = {
    "allow": JUDGED_ALLOW, "block": JUDGED_BLOCK, "respond": JUDGED_RESPOND, "forward": JUDGED_FORWARD, "abort": JUDGED_ABORT,
}


cdef int judge(Settings settings, object decision) except -1:
    """Judge what on_request returned. By its exact type: a mock of a decision has no answer to give."""
    if decision is settings.allow:
        return JUDGED_ALLOW
    if type(decision) is not settings.decision_type:
        return JUDGED_NO_DECISION
    return JUDGEMENTS[decision.kind]


RESPONSE_JUDGEMENTS = {
    "pass": RESPONSE_JUDGED_PASS, "unfiltered": RESPONSE_JUDGED_UNFILTERED, "hold": RESPONSE_JUDGED_HOLD, "change": RESPONSE_JUDGED_CHANGE,
    "replace": RESPONSE_JUDGED_REPLACE, "block": RESPONSE_JUDGED_BLOCK,
}


cdef int judge_response(Settings settings, object decision) except -1:
    """Judge what on_response_head or on_response_body returned."""
    if decision is settings.response_pass:
        return RESPONSE_JUDGED_PASS
    if type(decision) is not settings.response_decision_type:
        return RESPONSE_JUDGED_NO_DECISION
    return RESPONSE_JUDGEMENTS[decision.kind]


cdef int judge_failure(Settings settings, object error) except -1:
    """Judge a hook that raised, or was late."""
    if settings.hooks.block_on_failure:
        return JUDGED_FAILED
    if settings.meant_to_block(error):
        return JUDGED_FAILED_BLOCK
    return JUDGED_FAILED_ABORT if settings.hooks.cuts(error) else JUDGED_UNDECIDED


cdef bytes judgement_text(int judgement):
    if judgement == JUDGED_NO_DECISION:
        return b"the policy handler returned no decision"
    if judgement == JUDGED_FAILED:
        return b"the policy handler failed and handler.failure_policy is block"
    if judgement == JUDGED_FAILED_BLOCK:
        return b"the policy handler failed to make the decision that it wanted"
    return b""
