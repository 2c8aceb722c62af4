"""Which requests a rule is about."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from soth_mitm import RawRequest
from soth_mitm.addresses import DEFAULT_PORTS, parse_authority
from soth_mitm.destinations import DestinationPattern


class Hosts:
    """Destinations by patterns. `ValueError` names a pattern that is none."""

    def __init__(self, patterns: Iterable[str]) -> None:
        if isinstance(patterns, str):
            raise TypeError("hosts: expected several patterns, got one string; write [...] around it")
        self._patterns = [parsed_pattern(text) for text in patterns]
        if not self._patterns:
            raise ValueError("hosts: is empty; name at least one pattern, such as `api.example.com:443`")

    def match(self, host: str, port: int) -> bool:
        """Tell whether the rule is about a destination."""
        return any(pattern.matches(host, port) for pattern in self._patterns)

    def match_request(self, request: RawRequest) -> bool:
        """Tell whether the rule is about the authority that a request names; one that cannot be read is none."""
        named = destination_of(request)
        return named is not None and self.match(*named)


class Url(NamedTuple):
    """A URL with `*` in its host, as its port, and in its path. `path` has a group for each `*`."""

    scheme: str
    host: DestinationPattern
    path: re.Pattern[str]
    has_query: bool

    @classmethod
    def parse(cls, text: str) -> "Url":
        """Read a URL pattern; `ValueError` says what is wrong with it."""
        scheme, mark, rest = text.partition("://")
        if not mark or scheme.lower() not in DEFAULT_PORTS:
            raise ValueError(f"url: `{text}` does not begin with http:// or https://")
        authority, slash, path = rest.partition("/")
        has_port = re.search(r":(\d+|\*)\Z", authority) is not None
        host = parsed_pattern(authority if has_port else f"{authority}:{DEFAULT_PORTS[scheme.lower()]}")
        source = ".*".join(f"{re.escape(part)}" for part in (slash + path or "/").split("*"))
        return cls(scheme.lower(), host, re.compile(source.replace(".*", "(.*)"), re.DOTALL), "?" in path)

    def match(self, request: RawRequest) -> tuple[str, ...] | None:
        """Return what each `*` of the path stands for; None if the URL of the request is another."""
        if request.scheme != self.scheme:
            return None
        named = destination_of(request)
        if named is None or not self.host.matches(*named):
            return None
        found = self.path.fullmatch(request.path if self.has_query else request.path.partition("?")[0])
        return None if found is None else found.groups()


def parsed_pattern(text: str) -> DestinationPattern:
    """Read a destination pattern; `ValueError` names it."""
    try:
        return DestinationPattern.parse(text)
    except ValueError as error:
        raise ValueError(f"`{text}` {error}") from None


def destination_of(request: RawRequest) -> tuple[str, int] | None:
    """Return the host and port that a request names, None if they cannot be read."""
    try:
        return parse_authority(request.authority, DEFAULT_PORTS[request.scheme])
    except ValueError:
        return None
