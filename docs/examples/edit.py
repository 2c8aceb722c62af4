"""A handler that edits requests and stands in for a language model.

    python -m soth_mitm run --destination 'api.example.com:443' --handler edit:Edit

A request for a chat is answered here, event by event. All others go on with another key, and without cookies.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest

EVENTS = {"Content-Type": "text/event-stream"}


async def words(text: str) -> AsyncIterator[bytes]:
    for word in text.split():
        # the next one is asked for when the client has read this one
        yield b"data: " + json.dumps({"delta": word}).encode() + b"\n\n"
        await asyncio.sleep(0.1)
    yield b"data: [DONE]\n\n"


class Edit(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        if request.path == "/v1/chat":
            return HandlerDecision.respond(200, words("this is not a model"), EVENTS)
        return HandlerDecision.forward(set={"Authorization": "Bearer of-the-team"}, remove=["Cookie"])
