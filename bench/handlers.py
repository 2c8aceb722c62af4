"""The handlers that the measured proxy runs with: none of the hooks, one coroutine hook that does not suspend, hooks for messages."""

from soth_mitm import ChunkDecision, HandlerDecision, InterceptHandler, RawRequest, StreamChunk

# Overrides nothing, so nothing may be paid for it. A class of its own that overrides nothing would be refused.
Noop = InterceptHandler


class OneCoroutineHook(InterceptHandler):
    """Looks at every request and allows it."""

    def __init__(self) -> None:
        self.requests = 0

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        self.requests += 1
        return HandlerDecision.ALLOW


class MessageHook(InterceptHandler):
    """Looks at every message of a WebSocket."""

    def __init__(self) -> None:
        self.messages = 0

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        self.messages += 1


class MessageFilter(InterceptHandler):
    """Decides about every message of a WebSocket, and lets it pass."""

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        return ChunkDecision.PASS


class MessageFilterAndHook(MessageHook):
    """Does both."""

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        return ChunkDecision.PASS
