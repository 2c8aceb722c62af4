"""Answer requests with JSON, or with a stream of events."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from inspect import isawaitable
from typing import Any

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, SseEvent
from soth_mitm.rules.matching import Url

Headers = dict[str, str] | Iterable[tuple[str, str]]


class MockJson(InterceptHandler):
    """Answers the requests for a URL in the upstream's place."""

    def __init__(self, method: str, url: str, value: Any, status: int, headers: Headers, delay: float, cors: bool) -> None:
        self._method = method.upper()
        self._url = Url.parse(url)
        self._status = status
        self._headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
        self._delay = delay
        self._cors = cors
        self._value = value if callable(value) else _fixed(value)
        if not callable(value):
            # what is wrong is said now
            self._decision(self._value, None)

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        """Answer the request if it is for the URL."""
        if self._url.match(request) is None:
            return HandlerDecision.ALLOW
        origin = request.headers.get("origin") if self._cors else None
        wanted = request.headers.get("access-control-request-method")
        if origin is not None and request.method == "OPTIONS" and wanted is not None:
            return self._preflight(origin, wanted, request)
        if self._method not in ("*", request.method):
            return HandlerDecision.ALLOW
        if self._delay:
            await asyncio.sleep(self._delay)
        value = self._value
        if callable(value):
            value = value(request)
            value = _fixed(await value if isawaitable(value) else value)
        return self._decision(value, origin)

    def _decision(self, value: bytes | tuple[SseEvent, ...], origin: str | None) -> HandlerDecision:
        media_type = "application/json" if isinstance(value, bytes) else "text/event-stream"
        own = {name.lower() for name, _ in self._headers}
        headers = [] if "content-type" in own else [("Content-Type", media_type)]
        if not isinstance(value, bytes) and "cache-control" not in own:
            headers.append(("Cache-Control", "no-cache"))
        headers += self._headers
        if origin is not None:
            headers += _cors(origin)
        return HandlerDecision.respond(self._status, value if isinstance(value, bytes) else self._events(value), headers)

    async def _events(self, events: tuple[SseEvent, ...]) -> AsyncIterator[bytes]:
        for number, event in enumerate(events):
            if number and self._delay:
                await asyncio.sleep(self._delay)
            yield b"".join(_lines(event))

    def _preflight(self, origin: str, wanted: str, request: RawRequest) -> HandlerDecision:
        headers = [*_cors(origin), ("Access-Control-Allow-Methods", wanted if self._method == "*" else self._method)]
        asked = request.headers.get("access-control-request-headers")
        if asked is not None:
            headers.append(("Access-Control-Allow-Headers", asked))
        return HandlerDecision.respond(204, b"", headers)


def _fixed(value: Any) -> bytes | tuple[SseEvent, ...]:
    """Return the body for a value: JSON, or the events that it consists of."""
    if not isinstance(value, str | bytes | dict) and isinstance(value, Iterable):
        items = tuple(value)
        if any(isinstance(item, SseEvent) for item in items):
            if not all(isinstance(item, SseEvent) for item in items):
                raise TypeError("value: has events among other things; give SseEvents only, or none")
            return items
        value = list(items)
    return json.dumps(value).encode()


def _lines(event: SseEvent) -> Iterator[bytes]:
    """Yield the lines of an event, and the empty one behind it."""
    for name, text in (("event", event.event), ("id", event.id), ("retry", event.retry)):
        if text is not None:
            yield f"{name}: {text}\n".encode()
    data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
    for line in re.split(rb"\r\n|\r|\n", data):
        yield b"data: " + line + b"\n"
    yield b"\n"


def _cors(origin: str) -> list[tuple[str, str]]:
    return [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true"), ("Vary", "Origin")]


def mock_json(
    method: str,
    url: str,
    value: Any,
    *,
    status: int = 200,
    headers: Headers = (),
    delay: float = 0.0,
    cors: bool = False,
) -> InterceptHandler:
    """Answer `method` (`"*"`: each) for `url` with JSON; nothing is dialled.

    `value` is anything that `json` can write; or several `SseEvent`s, which are sent as a stream of events; or a function that is given
    the request and returns one of these, at once or as a coroutine. `delay` is in seconds: before the answer, and before each further
    event. `cors` answers a browser's preflights and lets each origin that asks read the answer.

    >>> from soth_mitm import SseEvent, rules
    >>> handler = rules.mock_json("POST", "https://llm.example.com/v1/chat", [SseEvent('{"text": "Hi"}'), SseEvent("[DONE]")])
    """
    return MockJson(method, url, value, status, headers, delay, cors)
