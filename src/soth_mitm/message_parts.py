"""What the decisions of a handler are made of: headers, statuses and bodies, checked where they are given."""

import contextvars
import functools
import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, ParamSpec, Self, TypeVar

from soth_mitm.errors import DecisionTypeError, DecisionValueError

P = ParamSpec("P")
T = TypeVar("T")

HeaderText = str | bytes
Content = str | bytes | bytearray | memoryview
Streamed = Content | AsyncIterable[bytes]
HeaderPairs = Mapping[HeaderText, HeaderText] | Mapping[str, str] | Iterable[tuple[HeaderText, HeaderText]]
HeaderChanges = (
    Mapping[HeaderText, HeaderText | Sequence[HeaderText]]
    | Mapping[str, str]
    | Mapping[str, str | Sequence[str]]
    | Iterable[tuple[HeaderText, HeaderText]]
)
Lines = tuple[tuple[bytes, bytes], ...]
"""Names and values."""
WantedLines = tuple[tuple[bytes, tuple[bytes, ...]], ...]
"""Names, each with its values."""

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 section 5.5: no control characters but the tab; bytes above 0x7F are opaque.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# The proxy frames the answer and decides about the connection, in the client's protocol.
OURS = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade")
)
# The handshake of a WebSocket; what Sec-WebSocket-Protocol says is between client and upstream alone.
OURS_IN_HANDSHAKES = frozenset((b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-accept", b"sec-websocket-extensions"))
# Statuses whose responses have no content (RFC 9110 section 15).
BODILESS = (204, 205, 304)
# What describes a body, and is wrong of another one (RFC 9110 section 8, RFC 9530); http/changes takes these out of a request.
DESCRIBES_BODY = (b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"trailer", b"expect")
_CHARSET = re.compile(rb';[ \t]*charset="?([^";\s]*)', re.IGNORECASE)
# Lines that one decision may set, add and remove together.
_MOST_CHANGES = 64


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


class Decision:
    """What decisions about requests and about responses have in common: they cannot be changed, and two that do the same are equal.

    Not public. A class names its parts in `__slots__`, and in `_NOTHING` what each is where it says nothing.
    """

    __slots__ = ("_untaken",)

    _NOTHING: ClassVar[Mapping[str, object]]
    body: bytes | AsyncIterable[bytes] | None
    _untaken: list[tuple[AsyncIterable[bytes], contextvars.Context]] | None

    @classmethod
    def _make(cls, kind: str, **parts: object) -> Self:
        decision = object.__new__(cls)
        for name, value in {**cls._NOTHING, "kind": kind, **parts}.items():
            object.__setattr__(decision, name, value)
        body = parts.get("body")
        untaken = None if body is None or isinstance(body, bytes) else [(body, contextvars.copy_context())]
        object.__setattr__(decision, "_untaken", untaken)
        return decision

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed; make another one (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed (tried to delete {name!r})")

    def _parts(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def _take_body(self) -> bytes | tuple[AsyncIterable[bytes], contextvars.Context]:
        """Return the body that is to be sent: bytes, or the iterable and its context, once. For the proxy.

        `DecisionValueError` if another message has taken the iterable.
        """
        if self._untaken is None:
            assert isinstance(self.body, bytes)
            return self.body
        try:
            return self._untaken.pop()
        except IndexError:
            raise DecisionValueError("body: an async iterable serves one message; make a decision for each") from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self._parts() == other._parts()

    def __hash__(self) -> int:
        if self._untaken is not None:
            raise TypeError(f"a {type(self).__name__} with an async iterable cannot be hashed")
        return hash(self._parts())

    def _refuse_copies(self) -> None:
        if self._untaken is not None:
            raise TypeError(f"a {type(self).__name__} with an async iterable cannot be pickled or copied")


def shown_body(body: bytes | AsyncIterable[bytes] | None) -> str:
    """Return what the `repr` of a decision says of its body."""
    if not isinstance(body, bytes):
        return f"<{type(body).__name__}>"
    return repr(body if len(body) <= 60 else body[:57] + b"...")


def changed_lines(
    set: HeaderChanges, add: HeaderChanges, remove: Iterable[HeaderText], ours: frozenset[bytes], body: object = None
) -> tuple[WantedLines, Lines, tuple[bytes, ...]]:
    """Check changes to a head, and return them in one spelling. `body` is what the head is to describe."""
    wanted: dict[bytes, tuple[bytes, list[bytes]]] = {}
    for name, value in _lines(set, "set", ours):
        wanted.setdefault(name.lower(), (name, []))[1].append(value)
    added = tuple(_lines(add, "add", ours))
    if isinstance(remove, str | bytes):
        raise TypeError(f"remove: expected an iterable of names, got {remove!r}")
    removed = tuple(dict.fromkeys(_name(name, "remove", ours).lower() for name in remove))
    for name in removed:
        if name in wanted:
            raise ValueError(f"remove: {name.decode()!r} is set as well")
    check_charset(body, [(name, value) for name, values in wanted.values() for value in values])
    count = sum(len(values) for _, values in wanted.values()) + len(added) + len(removed)
    if count > _MOST_CHANGES:
        raise ValueError(f"one decision changes {_MOST_CHANGES} header lines at most, got {count}")
    return tuple((name, tuple(values)) for name, values in wanted.values()), added, removed


def merged_lines(first: Any, later: Any, described: Iterable[bytes]) -> tuple[WantedLines, Lines, tuple[bytes, ...]]:
    """Return the changes to a head that do what `first` does and then `later`. `described` are names that a new body takes away before."""
    # what is set over again keeps the place that it was given
    wanted = {name.lower(): (name, values) for name, values in first.set}
    removed = dict.fromkeys(first.remove)
    gone = {name.lower() for name, _ in later.set} | set(later.remove) | set(described)
    added = [(name, value) for name, value in first.add if name.lower() not in gone]
    for lower in later.remove:
        wanted.pop(lower, None)
        removed[lower] = None
    for lower in described:
        wanted.pop(lower, None)
    for name, values in later.set:
        lower = name.lower()
        if lower in removed and lower not in wanted:
            # behind all others, where it went when it was set on a message without it
            added += [(name, value) for value in values]
        else:
            wanted[lower] = (wanted.get(lower, (name,))[0], values)
    added += later.add
    return tuple(wanted.values()), tuple(added), tuple(removed)


def changed_headers(lines: Lines, decision: Any, described: Iterable[bytes]) -> Lines:
    """Return the headers of a head of the handler's own, as `decision` changes it; `described` are gone before."""
    wanted = {name.lower(): values for name, values in decision.set}
    gone = {*decision.remove, *(lower for lower in described if lower not in wanted)}
    kept: list[tuple[bytes, bytes]] = []
    placed: set[bytes] = set()
    for name, value in lines:
        lower = name.lower()
        if lower in gone or lower in placed:
            continue
        if lower not in wanted:
            kept.append((name, value))
            continue
        placed.add(lower)
        kept += [(name, each) for each in wanted[lower]]
    kept += [(name, each) for name, values in decision.set if name.lower() not in placed for each in values]
    return (*kept, *decision.add)


def shown_changes(decision: Any) -> list[str]:
    """Return what the `repr` of a decision says of its changes to a head: names only, as values may be credentials."""
    names = [f"{what}={[each[0] for each in pairs]!r}" for what, pairs in (("set", decision.set), ("add", decision.add)) if pairs]
    return names + ([f"remove={list(decision.remove)!r}"] if decision.remove else [])


def _lines(given: HeaderChanges, what: str, ours: frozenset[bytes]) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(given, str | bytes):
        raise TypeError(f"{what}: expected a mapping or pairs of name and value, got {given!r}")
    pairs = given.items() if isinstance(given, Mapping) else given
    for name, values in pairs:
        if isinstance(values, str | bytes):
            yield _header(name, values, what, ours)
            continue
        lines = [_header(name, value, what, ours) for value in values]
        if not lines:
            raise ValueError(f"{what}: {name!r} has no value; `remove` takes a header away")
        yield from lines


def own_headers(headers: HeaderPairs, body: object) -> Lines:
    """Check the headers of a response of the handler's, whose body is `body`."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = tuple(_header(name, value, "headers", OURS) for name, value in pairs)
    check_charset(body, lines)
    return lines


def final_status(status: int) -> int:
    """Check the status of a response that is the last one to its request."""
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status: expected a whole number, got {status!r}")
    if not 200 <= status <= 599:
        raise ValueError(f"status: expected a final status from 200 to 599, got {status}")
    return status


def check_has_body(status: int, content: bytes | AsyncIterable[bytes]) -> None:
    """Refuse content for a status whose responses have none."""
    if content and status in BODILESS:
        given = f"{len(content)} bytes" if isinstance(content, bytes) else "an async iterable"
        raise ValueError(f"body: a response with status {status} has none, got {given}")


def check_charset(body: object, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse text where Content-Type says another charset than UTF-8."""
    if not isinstance(body, str) or body.isascii():
        return
    for name, value in headers:
        charset = _CHARSET.search(value) if name.lower() == b"content-type" else None
        if charset is not None and charset[1].lower() not in (b"utf-8", b"utf8"):
            raise ValueError(f"body: text is sent as UTF-8, and Content-Type says {charset[1].decode('latin-1')}; give bytes")


def streamed(body: Streamed) -> bytes | AsyncIterable[bytes]:
    """Return a body that may be an async iterable."""
    return body if isinstance(body, AsyncIterable) else content_of(body)


def content_of(body: Content) -> bytes:
    """Return a body as bytes; text as UTF-8."""
    if not isinstance(body, str | bytes | bytearray | memoryview):
        raise TypeError(f"body: expected str or bytes, got {type(body).__name__}")
    return body.encode("utf-8") if isinstance(body, str) else bytes(body)


def _name(name: HeaderText, what: str, ours: frozenset[bytes]) -> bytes:
    raw = bytes_of(name, what, "name")
    if not TOKEN.fullmatch(raw):
        raise ValueError(f"{what}: {name!r} is not a header name")
    if raw.lower() in ours:
        raise ValueError(f"{what}: {name!r} is set by the proxy; leave it out")
    return raw


def _header(name: HeaderText, value: HeaderText, what: str, ours: frozenset[bytes]) -> tuple[bytes, bytes]:
    raw_name, raw_value = _name(name, what, ours), bytes_of(value, what, "value").strip(b" \t")
    if _CONTROL.search(raw_value):
        raise ValueError(f"{what}: the value of {name!r} contains a control character: {value!r}")
    return raw_name, raw_value


def bytes_of(text: HeaderText, what: str, part: str) -> bytes:
    """Return a part of a head as bytes; text as Latin-1."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TypeError(f"{what}: expected str or bytes as {part}, got {type(text).__name__}")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{what}: {text!r} is not Latin-1; encode it to bytes yourself") from None
