"""`Credential`: a placeholder, the value that it stands for, and where that value may go."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Struct
from msgspec.structs import force_setattr

from soth_mitm.config.schema import Key, Spec, entry_specs
from soth_mitm.config.sections import MAX_COUNT, InterceptionConfig, UpstreamConfig
from soth_mitm.destinations import DestinationPattern, parse_redirect
from soth_mitm.errors import InvalidConfigError
from soth_mitm.secret import CredentialSource, Secret
from soth_mitm.spellings import SHORTEST

SHORTEST_PLACEHOLDER = 16

_SCHEMES = ("env", "file", "command")
_PLACES = "`header:NAME`, `basic`, `query:NAME`, `path`, `body` and `websocket`"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What the proxy sets itself, or what says where a request goes: a value there would end in logs and caches
_NO_PLACE = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "proxy-authorization")
    + ("te", "trailer", "upgrade", "expect", "max-forwards", "range", "if-range", "http2-settings", "sec-websocket-key")
)


def _check_placeholder(text: str) -> None:
    if len(text) < SHORTEST_PLACEHOLDER:
        raise ValueError(f"has {len(text)} characters, and needs {SHORTEST_PLACEHOLDER}: shorter text occurs by chance")
    if not re.fullmatch(r"[\x21\x23-\x24\x26-\x5b\x5d-\x7e]+", text):
        raise ValueError('has a character that is not printable ASCII, or one of space, `"`, `%` and `\\`')


def _check_place(text: str) -> None:
    kind, colon, name = text.partition(":")
    if kind in ("basic", "path", "body", "websocket") and not colon:
        return
    if kind not in ("header", "query") or not colon:
        raise ValueError(f"is no place; places are {_PLACES}")
    if not name:
        raise ValueError(f"names no {'header' if kind == 'header' else 'parameter'}; write `{kind}:NAME`")
    if kind == "header" and not _TOKEN.fullmatch(name):
        raise ValueError("names no header: that is letters, digits and `-`")
    if kind == "header" and name.lower() in _NO_PLACE:
        raise ValueError("names a header that the proxy sets itself, or that says how the request is read")


def _check_destination(text: str) -> None:
    if DestinationPattern.parse(text).host.strip("*") == "":
        raise ValueError("stands for every host, and a credential is for some; name the hosts, or the domain")


class _Said(Struct, frozen=True):
    placeholder: Annotated[
        str,
        Key(
            "What clients have in its place: 16 characters of printable ASCII or more. No other credential's placeholder is a part of it.",
            example="llm-placeholder-0000",
        ),
    ]
    source: Annotated[
        str | Secret | CredentialSource,
        Key(
            "Where the value comes from: `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENTS`, which is run without a shell. One line "
            "end behind it is left out. In code also a `Secret`, or an object with `resolve` (docs/credentials.md).",
            example="env:LLM_API_KEY",
        ),
    ]
    destinations: Annotated[
        Sequence[str],
        Key(
            "Where it may go, as patterns. They must be intercepted, with the upstream's certificate verified.",
            check=_check_destination,
            example=["llm.example.org:443"],
        ),
    ]


class Credential(_Said, frozen=True, kw_only=True):
    """A value that clients do not have: put in for its placeholder, on the way to its destinations only.

    `Credential(placeholder, source, destinations, *, place=("header:authorization",), redact=True, ttl_ms=300_000)` in
    `config.credentials` is the same as a table `[[credentials]]` of a file. Immutable. `InvalidConfigError` names the key at fault.
    """

    place: Annotated[
        Sequence[str],
        Key(
            f"Where in a request the placeholder is replaced: {_PLACES}.",
            check=_check_place,
            example=["header:authorization"],
        ),
    ] = ("header:authorization",)
    redact: Annotated[
        bool,
        Key(
            "Turn the value back into its placeholder in responses of these destinations; then it must have 8 bytes or more. "
            "These lose their length, coding and validators, and requests their Range."
        ),
    ] = True
    ttl_ms: Annotated[int, Key("How long a value is used before it is asked for again.", 1, MAX_COUNT)] = 300_000

    def __post_init__(self) -> None:
        """Raise `InvalidConfigError` with the key at fault; no message shows a value, or what may be one by mistake."""
        known = credential_specs()
        for name in ("destinations", "place"):
            given = getattr(self, name)
            if isinstance(given, str | bytes) or not isinstance(given, Sequence) or not all(isinstance(text, str) for text in given):
                raise known[name].error(f"expected a list of strings, got {type(given).__name__}")
            if not given:
                raise known[name].error("is empty; name at least one")
            known[name].verify(list(given))
            force_setattr(self, name, tuple(given))
        for name in ("redact", "ttl_ms"):
            known[name].verify(getattr(self, name))
        placeholder = self.placeholder
        if not isinstance(placeholder, str):
            raise known["placeholder"].error(f"expected a string, got {type(placeholder).__name__}")
        try:
            _check_placeholder(placeholder)
        except ValueError as error:
            raise known["placeholder"].error(str(error)) from None
        self._check_source(known["source"])

    def _check_source(self, spec: Spec) -> None:
        source = self.source
        if isinstance(source, Secret):
            try:
                check_value(source, self.redact)
            except ValueError as error:
                raise spec.error(str(error)) from None
        elif isinstance(source, str):
            scheme, colon, rest = source.partition(":")
            if scheme not in _SCHEMES or not colon or not rest.strip():
                # what stands here may be the value itself
                raise spec.error("is none of `env:NAME`, `file:PATH` and `command:PROGRAM`; a value itself does not belong here")
            if "\0" in rest:
                raise spec.error("contains a NUL")
            if scheme == "command":
                try:
                    shlex.split(rest)
                except ValueError as error:
                    raise spec.error(f"is a command that cannot be read: {error}") from None
        elif isinstance(source, type) or not callable(getattr(source, "resolve", None)):
            raise spec.error(f"expected a string, a Secret or an object with `resolve`, got {type(source).__name__}")
        elif isinstance(ttl := getattr(source, "ttl", None), bool) or not isinstance(ttl, int | float) or not ttl > 0:
            raise spec.error(f"{type(source).__name__}.ttl is to be a number of seconds above 0")

    @property
    def ttl(self) -> float:
        """Seconds for which a value is used."""
        source = self.source
        return self.ttl_ms / 1000 if isinstance(source, str | Secret) else source.ttl

    @property
    def shown_source(self) -> str:
        """Where the value comes from, for people: without the arguments of a command, which may hold more than they should."""
        source = self.source
        if not isinstance(source, str):
            return "Secret(***)" if isinstance(source, Secret) else f"<{type(source).__name__}>"
        scheme, _, rest = source.partition(":")
        return f"command:{shlex.split(rest)[0]}" if scheme == "command" else source

    def __repr__(self) -> str:
        said = f"{self.placeholder!r}, {self.shown_source!r}, {list(self.destinations)}"
        return f"Credential({said}, place={list(self.place)}, redact={self.redact})"

    def __deepcopy__(self, memo: object) -> "Credential":
        # nothing of it changes, and a source in code is its owner's
        return self


def credential_specs() -> Mapping[str, Spec]:
    """Return the keys of a credential by their names."""
    return entry_specs(Credential, "credentials")


def check_value(secret: Secret, redact: bool) -> None:
    """Raise `ValueError` if a value is too short to be looked for in responses."""
    if redact and len(secret.reveal()) < SHORTEST:
        raise ValueError(f"the value has {len(secret.reveal())} bytes, and `redact` needs {SHORTEST}: shorter text occurs by chance")


def verify_credentials(credentials: Sequence[Credential], interception: InterceptionConfig, upstream: UpstreamConfig) -> None:
    """Raise `InvalidConfigError` with the key of the first credential that does not go with the others, or with where requests go."""
    for index, credential in enumerate(credentials):
        name = f"credentials[{index}]"
        for other, earlier in enumerate(credentials[:index]):
            if credential.placeholder in earlier.placeholder or earlier.placeholder in credential.placeholder:
                same = credential.placeholder == earlier.placeholder
                how = "is that" if same else "contains that, or is a part of that,"
                raise InvalidConfigError(f"{name}.placeholder", f"{how} of credentials[{other}]; make them differ")
        for text in credential.destinations:
            _verify_destination(f"{name}.destinations", text, interception, upstream)


def _verify_destination(key: str, text: str, interception: InterceptionConfig, upstream: UpstreamConfig) -> None:
    pattern = DestinationPattern.parse(text)
    if not any(DestinationPattern.parse(each).covers(pattern) for each in interception.destinations):
        raise InvalidConfigError(key, f"`{text}` is not intercepted; add it to `interception.destinations`")
    if not upstream.verify_upstream_tls:
        raise InvalidConfigError(key, f"`{text}` is not verified: `upstream.verify_upstream_tls` is false, so anybody could have the value")
    for each in upstream.insecure_destinations:
        if DestinationPattern.parse(each).overlaps(pattern):
            raise InvalidConfigError(key, f"`{text}` is not verified where `{each}` of `upstream.insecure_destinations` matches")
    for each in upstream.connect_to:
        leads, there = parse_redirect(each)
        if there.secure is False and leads.overlaps(pattern):
            raise InvalidConfigError(key, f"`{text}` is reached without TLS where `{each}` of `upstream.connect_to` matches")
