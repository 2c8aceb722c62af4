"""The handlers that the measured proxy runs with: none of the hooks, and one coroutine hook that does not suspend."""

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest

# Overrides nothing, so nothing may be paid for it. A class of its own that overrides nothing would be refused.
Noop = InterceptHandler


class OneCoroutineHook(InterceptHandler):
    """Looks at every request and allows it."""

    def __init__(self) -> None:
        self.requests = 0

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        self.requests += 1
        return HandlerDecision.ALLOW
