"""Who may use the web view: requests that this machine's browser sends to the view's own page, with the key of a session.

A page of another site can have its name lead to a loopback address (DNS rebinding), and any program of this machine can connect. So each
request must name the view's address in `Host`, come from the view's own page where it says from where, and carry the session's key. The
key is given once, for the secret that is in the fragment of the printed address. There is no cookie: cookies ignore ports, so that
other servers of this machine would receive it.
"""

import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# How long the printed address can be opened
SECRET_SECONDS = 300.0
SESSION_PATH = "/api/session"
_API = "/api/"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
)


class Refusal(NamedTuple):
    """What a request is answered with that goes no further."""

    status: int
    text: str


class Sessions:
    """Gives the key of a session for a secret, once. `clock` is in seconds and does not go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret: str | None = secrets.token_urlsafe(32)
        self._until = clock() + SECRET_SECONDS
        self._key = secrets.token_urlsafe(32)
        self.secret = self._secret
        """For the printed address."""

    def exchange(self, secret: str) -> str | Refusal:
        """Return the key for the secret, which can be used no second time."""
        if self._secret is None:
            return Refusal(403, "this address was opened before, and it opens once. `soth-mitm view` prints a new one")
        if self._clock() > self._until:
            return Refusal(403, "this address is older than 5 minutes. `soth-mitm view` prints a new one")
        if not hmac.compare_digest(secret.encode("utf-8", "replace"), self._secret.encode()):
            return Refusal(403, "this is not the address that was printed. `soth-mitm view` prints a new one")
        self._secret = None
        return self._key

    def knows(self, authorization: bytes | None) -> bool:
        """Tell whether the value of an Authorization field has the key."""
        return hmac.compare_digest(authorization or b"", b"Bearer " + self._key.encode())


class Guard:
    """Stands before `app`: lets through what comes from the view's own page, and gives every response the view's headers.

    `port` is that at which the view listens, on `host`, a loopback address.
    """

    def __init__(self, app: App, sessions: Sessions, host: str, port: int) -> None:
        self._app = app
        self._sessions = sessions
        self._hosts = frozenset(_spellings(("127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host), port))
        self._origins = frozenset(f"http://{each}" for each in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # neither WebSockets nor events of a lifespan are served here
            raise RuntimeError(f"the view serves no {scope['type']}")
        refusal = self.refusal(scope["method"], scope["path"], scope["headers"])
        if refusal is not None:
            await answer(send, refusal)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self._app(scope, receive, send_guarded)

    def refusal(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        """Return why a request goes no further, None if it does. Names of `headers` are in lower case."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name, []).append(value)
        hosts = found.get(b"host", [])
        if len(hosts) != 1 or _text(hosts[0]) not in self._hosts:
            return Refusal(403, f"Host is not where this view listens. Open http://{min(self._hosts)}/")
        if any(_text(value) not in self._origins for value in found.get(b"origin", ())):
            return Refusal(403, "the request comes from another site's page")
        if any(_text(value) not in ("same-origin", "none") for value in found.get(b"sec-fetch-site", ())):
            return Refusal(403, "the request comes from another site's page")
        if method not in ("GET", "HEAD") and not (method == "POST" and path == SESSION_PATH):
            return Refusal(405, f"{method} is not answered here")
        # the framework that routes has decoded the path once; twice would be another path
        if unquote(path).startswith(_API) and path != SESSION_PATH:
            keys = found.get(b"authorization", [])
            if len(keys) != 1 or not self._sessions.knows(keys[0]):
                return Refusal(
                    401, "this page has no session, or the view was started anew. Open the address that `soth-mitm view` printed"
                )
        return None


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip().lower()


def _spellings(names: Iterable[str], port: int) -> Iterable[str]:
    for name in names:
        yield f"{name}:{port}"
        if port == 80:
            yield name


async def answer(send: Send, refusal: Refusal) -> None:
    """Send a refusal as JSON: `error` has its words."""
    body = msgspec.json.encode({"error": refusal.text})
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 405:
        fields.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": [*fields, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
