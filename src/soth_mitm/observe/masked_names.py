"""What is masked by its name: fields of heads, parameters of queries and forms, fields of JSON; and how the names are spelled in patterns.

Case makes no difference, and in parameters and in JSON `_` and `-` are as good as nothing: `access_token` is `accessToken` as well.
"""

import re
from collections.abc import Iterable
from enum import Enum, auto


class HeadField(Enum):
    """How the value of a field of a head is masked."""

    WHOLE = auto()
    CREDENTIALS = auto()
    """The scheme stays, if it is one that is known."""
    COOKIE = auto()
    SET_COOKIE = auto()
    URL = auto()
    """A URL, or more of them: credentials are in its query, its fragment or before its host."""
    SUBPROTOCOL = auto()
    """Of WebSocket: browsers have no other field for a key."""


HEAD_FIELDS: dict[str, HeadField] = {
    "authorization": HeadField.CREDENTIALS,
    "proxy-authorization": HeadField.CREDENTIALS,
    "cookie": HeadField.COOKIE,
    "set-cookie": HeadField.SET_COOKIE,
    "location": HeadField.URL,
    "content-location": HeadField.URL,
    "referer": HeadField.URL,
    "link": HeadField.URL,
    "refresh": HeadField.URL,
    ":path": HeadField.URL,
    "sec-websocket-protocol": HeadField.SUBPROTOCOL,
} | dict.fromkeys(
    (
        *("x-api-key", "api-key", "x-goog-api-key", "x-amz-security-token", "x-auth-token", "x-csrf-token", "x-xsrf-token"),
        *("x-access-token", "x-session-token", "x-vault-token", "private-token", "ocp-apim-subscription-key", "x-functions-key"),
        *("x-goog-iam-authorization-token", "x-amz-signature", "authentication-info", "proxy-authentication-info", "dpop"),
    ),
    HeadField.WHOLE,
)

QUERY_NAMES = (
    *("key", "api_key", "access_token", "refresh_token", "id_token", "token", "sig", "signature", "client_secret", "password"),
    *("X-Amz-*", "X-Goog-*", "AWSAccessKeyId", "x_api_key", "auth_token", "session_token", "subscription_key"),
)
"""Parameters of a query. `signature` and `AWSAccessKeyId` are those of older signatures of AWS."""

BODY_NAMES = (
    *("access_token", "refresh_token", "id_token", "client_secret", "password", "api_key", "x_api_key", "secret_key"),
    *("secret_access_key", "session_token", "private_key", "client_assertion", "authorization", "proxy_authorization"),
    *("authorization_token", "auth_token"),
)
"""Fields of JSON and of forms. The last four are what clients of models pass on to servers of tools."""

_NAME = re.compile(r"[\w.$*:-]{1,64}", re.ASCII)
_ANY = r"[\w.-]{0,64}"
LONGEST_NAME = 256
"""Bytes of a name that is looked at, escapes included."""


def folded(name: str) -> str:
    """Return a name as it is compared in parameters and in JSON."""
    return name.lower().replace("_", "").replace("-", "")


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names; `ValueError` or `TypeError` says which of them is none."""
    if isinstance(names, str):
        raise TypeError(f"expected names of what to mask, got the str {names!r}; write ({names!r},)")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"expected str as a name of what to mask, got {name!r}")
        if not _NAME.fullmatch(name) or not name.strip("*") or name.count("*") > 2:
            raise ValueError(
                f"no name of what to mask: {name!r}; it has 1 to 64 letters, digits, `_`, `-`, `.`, and at most two `*` for any of these"
            )
    return found


def pattern_of(names: Iterable[str]) -> str:
    """Return a pattern for the names in lower case, longer ones first, as an alternation wants it."""
    return "|".join(_spelled(name) for name in sorted({name.lower() for name in names}, key=lambda name: (-len(name), name)))


def _spelled(name: str) -> str:
    parts = (("[_-]?".join(map(re.escape, re.split("[_-]", part)))) for part in name.split("*"))
    return _ANY.join(parts)


class NameSet:
    """Names to be looked up in; those with a `*` are patterns."""

    def __init__(self, names: Iterable[str]) -> None:
        found = tuple(names)
        self._exact = frozenset(folded(name) for name in found if "*" not in name)
        globs = [folded(name) for name in found if "*" in name]
        self._globs = re.compile("|".join(".*".join(map(re.escape, glob.split("*"))) for glob in globs), re.DOTALL) if globs else None

    def __contains__(self, name: str) -> bool:
        name = folded(name)
        return name in self._exact or (self._globs is not None and self._globs.fullmatch(name) is not None)
