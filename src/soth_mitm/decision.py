"""What a handler may say about a request: let it go, or answer it."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, NoReturn, ParamSpec, TypeVar, final

from soth_mitm.errors import DecisionError, DecisionTypeError, DecisionValueError

P = ParamSpec("P")
T = TypeVar("T")

HeaderText = str | bytes
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
    """The answer of `on_request`. Immutable; made by `ALLOW` and `block`, never by calling the class.

    `is_block` tells the two apart; `status`, `body` and `headers` are those of the answer, and 0, empty and empty for `ALLOW`.
    """

    __slots__ = ("body", "headers", "is_block", "status")

    is_block: bool
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    ALLOW: ClassVar["HandlerDecision"]
    Allow: ClassVar["HandlerDecision"]

    def __init__(self) -> None:
        raise TypeError("use HandlerDecision.ALLOW or HandlerDecision.block(status, body, headers)")

    @staticmethod
    @checked
    def block(status: int, body: str | bytes = b"", headers: HeaderPairs = ()) -> "HandlerDecision":
        """Answer the request with `status` and `body` instead of forwarding it.

        `status` is a final one, 200 to 599. A body given as text is sent as UTF-8. Headers are sent in order; those that frame the answer
        or belong to the connection are the proxy's and refused. `DecisionValueError` and `DecisionTypeError` (a `ValueError` and a
        `TypeError`) say what is wrong, where the mistake is made; raised out of `on_request` they block the request with a 502.
        """
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
        return _make(True, status, content, tuple(_header(name, value) for name, value in pairs))

    Block = block

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a HandlerDecision cannot be changed; make another one (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a HandlerDecision cannot be changed (tried to delete {name!r})")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HandlerDecision):
            return NotImplemented
        return (self.is_block, self.status, self.body, self.headers) == (other.is_block, other.status, other.body, other.headers)

    def __hash__(self) -> int:
        return hash((self.is_block, self.status, self.body, self.headers))

    def __reduce__(self) -> str | tuple[object, ...]:
        return (HandlerDecision.block, (self.status, self.body, self.headers)) if self.is_block else "HandlerDecision.ALLOW"

    def __repr__(self) -> str:
        if not self.is_block:
            return "HandlerDecision.ALLOW"
        headers = f", headers={list(self.headers)!r}" if self.headers else ""
        body = self.body if len(self.body) <= 60 else self.body[:57] + b"..."
        return f"HandlerDecision.block({self.status}, {body!r}{headers})"


def _make(is_block: bool, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> HandlerDecision:
    decision = object.__new__(HandlerDecision)
    for name, value in (("is_block", is_block), ("status", status), ("body", body), ("headers", headers)):
        object.__setattr__(decision, name, value)
    return decision


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


HandlerDecision.ALLOW = HandlerDecision.Allow = _make(False, 0, b"", ())
