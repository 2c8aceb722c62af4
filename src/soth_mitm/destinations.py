"""Destination patterns: which hosts and ports a rule is about.

`host:port`, `[v6]:port`; `*` in the host stands for any characters, dots included, `*` as the port for any port. A pattern is anchored:
`*.example.com:443` does not match `example.com`. Case, a trailing dot and the spelling of an international name make no difference.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from soth_mitm.addresses import (
    MAX_NAME,
    format_host_port,
    is_loopback,
    normalise_host,
    parse_port,
    parse_target,
    refuse_zone,
    split_host_port,
)
from soth_mitm.globs import GlobIndex

T = TypeVar("T")

REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class DestinationPattern:
    """One parsed pattern. `host` is normalised, and a glob where it contains `*`; `port` is None for any port."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "DestinationPattern":
        """Read a pattern; `ValueError` says what is wrong with it, worded to follow the text."""
        host, port = split_host_port(text.strip())
        # what arrives with one is refused (ext/authority.h), so such a pattern would match nothing
        refuse_zone(host, port)
        if host.startswith(".") and "*" not in host:
            raise ValueError(f"has a host that begins with a dot; write `*{host}:{port}` for all names below it")
        return cls(_normalise_glob(host) if "*" in host else normalise_host(host), None if port == "*" else parse_port(port))

    @property
    def is_glob(self) -> bool:
        return "*" in self.host

    def matches(self, host: str, port: int) -> bool:
        """Tell whether this pattern is about `host`, normalised as by `normalise_host`, and `port`."""
        if self.port is not None and self.port != port:
            return False
        return re.fullmatch(_glob_source(self.host), host) is not None if self.is_glob else self.host == host

    def covers(self, other: "DestinationPattern") -> bool:
        """Tell whether every destination that `other` matches is matched by this pattern."""
        if self.port is not None and self.port != other.port:
            return False
        if not self.is_glob:
            return self.host == other.host
        # a `*` of the other is matched by a `*` of this one alone, which then matches whatever stands there
        return re.fullmatch(_glob_source(self.host), other.host) is not None

    def overlaps(self, other: "DestinationPattern") -> bool:
        """Tell whether there may be a destination that both patterns match."""
        ports_differ = self.port is not None and other.port is not None and self.port != other.port
        return not ports_differ and _globs_meet(self.host, other.host)

    def __str__(self) -> str:
        return format_host_port(self.host, "*" if self.port is None else self.port)


class DestinationMap(Generic[T]):
    """Values by destination. The most exact pattern answers: host and port, then host with any port, then the globs in the order given.

    Where two entries have the same pattern the first one stands. A look-up takes two dictionary reads and one search of an index of the
    globs for the port and of those for any port; its time does not grow with the number of patterns. The latest answers are remembered.
    """

    __slots__ = ("_by_host", "_by_host_port", "_glob_values", "_globs", "get")

    get: Callable[[str, int], T | None]
    """Return the value for a host, normalised as by `normalise_host`, and a port, or None."""

    def __init__(self, entries: Iterable[tuple[DestinationPattern, T]]) -> None:
        self._by_host_port: dict[tuple[str, int], T] = {}
        self._by_host: dict[str, T] = {}
        self._glob_values: list[T] = []
        self._globs: dict[int | None, GlobIndex] = {}
        for pattern, value in entries:
            if pattern.is_glob:
                index = self._globs.get(pattern.port)
                if index is None:
                    index = self._globs[pattern.port] = GlobIndex()
                index.add(pattern.host, len(self._glob_values))
                self._glob_values.append(value)
            elif pattern.port is None:
                self._by_host.setdefault(pattern.host, value)
            else:
                self._by_host_port.setdefault((pattern.host, pattern.port), value)
        self.get = functools.lru_cache(REMEMBERED)(self._search)

    def _search(self, host: str, port: int) -> T | None:
        if (host, port) in self._by_host_port:
            return self._by_host_port[host, port]
        if host in self._by_host:
            return self._by_host[host]
        indexes = (self._globs.get(port), self._globs.get(None))
        found = [number for index in indexes if index is not None and (number := index.find(host)) is not None]
        return self._glob_values[min(found)] if found else None


class Redirect(NamedTuple):
    """Where to connect instead of the target. `secure` is None where the scheme of the request stays."""

    host: str
    port: int
    secure: bool | None = None

    @property
    def is_exposed(self) -> bool:
        """Tell whether what is sent there may cross a network in clear, which is known not to happen for an address of this machine."""
        return self.secure is False and not is_loopback(self.host)

    def __str__(self) -> str:
        scheme = "" if self.secure is None else "https://" if self.secure else "http://"
        return scheme + format_host_port(self.host, self.port)


_SCHEMES = {"http": False, "https": True}


def parse_redirect(text: str) -> tuple[DestinationPattern, Redirect]:
    """Read `PATTERN=HOST:PORT`, with a scheme before HOST or without: which destinations, and where to connect instead.

    `ValueError` says what is wrong with it.
    """
    pattern, equals, there = text.partition("=")
    if not equals:
        raise ValueError("has no `=`; write `api.example.com:443=127.0.0.1:8443`")
    scheme, slashes, place = there.strip().rpartition("://")
    if slashes and scheme.lower() not in _SCHEMES:
        raise ValueError(f"has the scheme `{scheme}`; write `http://`, `https://` or none")
    if slashes and "/" in place:
        raise ValueError("has a path; write only the scheme, the host and the port")
    return DestinationPattern.parse(pattern), Redirect(*parse_target(place), _SCHEMES.get(scheme.lower()))


def _normalise_glob(host: str) -> str:
    """Bring the labels of a glob into the spelling of normalised hosts; characters that no host contains are refused."""
    host = host.removesuffix(".")
    if not host.isascii():
        labels = host.split(".")
        if any("*" in label and not label.isascii() for label in labels):
            raise ValueError("has `*` inside a label that is not ASCII; write that label in its `xn--` form")
        host = ".".join(label if label.isascii() else normalise_host(label) for label in labels)
    host = host.lower()
    if unfit := re.search(r"[^a-z0-9_.*-]", host):
        raise ValueError(f"has a host with `{unfit[0]}`, which no name contains")
    if len(host.replace("*", "")) > MAX_NAME:
        raise ValueError(f"has a host of more than {MAX_NAME} characters, which no name has")
    if ".." in host or host.startswith(".") or host.endswith("."):
        raise ValueError("has an empty label in its host")
    return host


def _glob_source(host: str) -> str:
    """Translate a glob into a regular expression that never tries a `*` twice.

    A shortest match for each `*` but the last is always good enough, so those groups are atomic. With plain `.*` the time would grow as
    the host's length to the power of the number of `*`, and the host is what a hostile client chooses.
    """
    first, *rest = (re.escape(part) for part in re.sub(r"\*+", "*", host).split("*"))
    return first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + f".*{rest[-1]}"


def _globs_meet(one: str, other: str) -> bool:
    """Tell whether some text is matched by both globs."""
    # which beginnings of `other` can be read by what was read of `one`
    reached = _after_stars({0}, other)
    for letter in one:
        if letter == "*":
            reached = set(range(min(reached, default=len(other) + 1), len(other) + 1))
        else:
            stay = {at for at in reached if at < len(other) and other[at] == "*"}
            reached = _after_stars(stay | {at + 1 for at in reached if at < len(other) and other[at] == letter}, other)
    return len(other) in reached


def _after_stars(reached: set[int], glob: str) -> set[int]:
    """Add what is reached where each `*` stands for nothing."""
    found = set(reached)
    for at in sorted(reached):
        while at < len(glob) and glob[at] == "*":
            at += 1
            found.add(at)
    return found
