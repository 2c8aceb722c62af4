"""What a handler's answer to on_request means."""

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


cdef int judge_failure(Settings settings, object error) except -1:
    """Judge an on_request that raised, or was late."""
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
