"""What a handler may say about a request: let it go, answer it, or end it."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal, NoReturn, ParamSpec, TypeVar, final

from soth_mitm.errors import DecisionError, DecisionTypeError, DecisionValueError

P = ParamSpec("P")
T = TypeVar("T")

HeaderText = str | bytes
Content = str | bytes | bytearray | memoryview
Kind = Literal["allow", "block", "respond", "abort"]
HeaderPairs = Mapping[HeaderText, HeaderText] | Mapping[str, str] | Iterable[tuple[HeaderText, HeaderText]]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 section 5.5: no control characters but the tab; bytes above 0x7F are opaque.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# The proxy frames the answer and decides about the connection, in the client's protocol.
_OURS = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade")
)
_BODILESS = (204, 205, 304)
# Exceptions that a handler raised in answer to others; one that is nested deeper is not looked for.
_MOST_CAUSES = 64


def checked(make: Callable[P, T]) -> Callable[P, T]:
    """Let `make`, which makes a decision that stops something, raise a `DecisionError` for whatever it does not take.

    The proxy recognises it (`meant_to_block`), so that a handler which fails here stops what it wanted to stop.
    """

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return make(*args, **kwargs)
        except TypeError as error:
            raise DecisionTypeError(str(error)) from error
        except Exception as error:
            # headers may be any iterable of the handler's, which may raise anything
            raise DecisionValueError(str(error)) from error

    return made


def meant_to_block(error: BaseException) -> bool:
    """Tell whether a handler failed because a decision was refused, or while it dealt with that."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < _MOST_CAUSES:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, DecisionError):
            return True
        waiting += (each.__context__, each.__cause__)
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
    return False


@final
class HandlerDecision:
    """The answer of `on_request`. Immutable; made by `ALLOW`, `block`, `respond` and `abort`, never by calling the class.

    `kind` is the name of what made it, in lower case. `status`, `body` and `headers` are those of the answer of a `block` or a
    `respond`, else 0, empty and empty. `how` is that of an `abort`, else empty. Two that do the same are equal.
    """

    __slots__ = ("body", "headers", "how", "kind", "status")

    kind: Kind
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    how: Literal["close", "reset", ""]

    ALLOW: ClassVar["HandlerDecision"]
    Allow: ClassVar["HandlerDecision"]

    def __init__(self) -> None:
        raise TypeError("use HandlerDecision.ALLOW, .block(status, body, headers), .respond(status, body, headers) or .abort(how)")

    @staticmethod
    @checked
    def block(status: int, body: Content = b"", headers: HeaderPairs = ()) -> "HandlerDecision":
        """Answer the request with `status` and `body` instead of forwarding it. Counted as blocked.

        `status` is a final one, 200 to 599. A body given as text is sent as UTF-8. Headers are sent in order; those that frame the answer
        or belong to the connection are the proxy's and refused. `DecisionValueError` and `DecisionTypeError` (a `ValueError` and a
        `TypeError`) say what is wrong, where the mistake is made; raised out of `on_request` they block the request with a 502.
        """
        return _answer("block", status, body, headers)

    Block = block

    @staticmethod
    @checked
    def respond(status: int = 200, body: Content = b"", headers: HeaderPairs = ()) -> "HandlerDecision":
        """Answer the request with `status` and `body` instead of forwarding it. Counted as answered, and nothing is dialled.

        The arguments, and what is refused, are those of `block`.
        """
        return _answer("respond", status, body, headers)

    @staticmethod
    @checked
    def abort(how: Literal["close", "reset"] = "reset") -> "HandlerDecision":
        """End the request without an answer, and nothing is dialled. Counted as aborted.

        On HTTP/1 the client's connection ends, after the responses to earlier requests: `"close"` with a FIN, `"reset"` with a RST. On
        HTTP/2 its stream is reset with CANCEL for `"close"`, with INTERNAL_ERROR for `"reset"`, and the connection goes on.
        """
        if how not in ("close", "reset"):
            raise ValueError(f"how: expected 'close' or 'reset', got {how!r}")
        return _make("abort", how=how)

    @property
    def is_block(self) -> bool:
        """Whether the decision is a block."""
        return self.kind == "block"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a HandlerDecision cannot be changed; make another one (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a HandlerDecision cannot be changed (tried to delete {name!r})")

    def _parts(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HandlerDecision):
            return NotImplemented
        return self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __reduce__(self) -> str | tuple[object, ...]:
        if self.kind == "block":
            return HandlerDecision.block, (self.status, self.body, self.headers)
        if self.kind == "respond":
            return HandlerDecision.respond, (self.status, self.body, self.headers)
        if self.kind == "abort":
            return HandlerDecision.abort, (self.how,)
        return "HandlerDecision.ALLOW"

    def __repr__(self) -> str:
        if self.kind == "allow":
            return "HandlerDecision.ALLOW"
        if self.kind == "abort":
            return f"HandlerDecision.abort({self.how!r})"
        headers = f", headers={list(self.headers)!r}" if self.headers else ""
        body = self.body if len(self.body) <= 60 else self.body[:57] + b"..."
        return f"HandlerDecision.{self.kind}({self.status}, {body!r}{headers})"


def _make(kind: Kind, **parts: object) -> HandlerDecision:
    decision = object.__new__(HandlerDecision)
    for name, value in {"kind": kind, "status": 0, "body": b"", "headers": (), "how": "", **parts}.items():
        object.__setattr__(decision, name, value)
    return decision


def _answer(kind: Kind, status: int, body: Content, headers: HeaderPairs) -> HandlerDecision:
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status: expected a whole number, got {status!r}")
    if not 200 <= status <= 599:
        raise ValueError(f"status: expected a final status from 200 to 599, got {status}")
    if not isinstance(body, str | bytes | bytearray | memoryview):
        raise TypeError(f"body: expected str or bytes, got {type(body).__name__}")
    content = body.encode("utf-8") if isinstance(body, str) else bytes(body)
    if content and status in _BODILESS:
        raise ValueError(f"body: a response with status {status} has none, got {len(content)} bytes")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return _make(kind, status=status, body=content, headers=tuple(_header(name, value) for name, value in pairs))


def _header(name: HeaderText, value: HeaderText) -> tuple[bytes, bytes]:
    raw_name, raw_value = _bytes_of(name, "name"), _bytes_of(value, "value").strip(b" \t")
    if not _TOKEN.fullmatch(raw_name):
        raise ValueError(f"headers: {name!r} is not a header name")
    if raw_name.lower() in _OURS:
        raise ValueError(f"headers: {name!r} is set by the proxy; leave it out")
    if _CONTROL.search(raw_value):
        raise ValueError(f"headers: the value of {name!r} contains a control character: {value!r}")
    return raw_name, raw_value


def _bytes_of(text: HeaderText, what: str) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TypeError(f"headers: expected str or bytes as {what}, got {type(text).__name__}")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"headers: {text!r} is not Latin-1; encode it to bytes yourself") from None


HandlerDecision.ALLOW = HandlerDecision.Allow = _make("allow")
