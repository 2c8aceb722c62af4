"""`MitmConfig`: the whole configuration, its sources and its validation.

Keys without a section are fields here; those of a section are in `sections`. The `Key` beside a field holds the text of
`soth-mitm config --defaults`, docs/configuration.md and every error message.
"""

import copy
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from msgspec import Struct, field
from msgspec.structs import asdict

from soth_mitm.addresses import is_loopback, parse_bind_address
from soth_mitm.config.credential import Credential, verify_credentials
from soth_mitm.config.loading import apply_environment, apply_mapping, preset_of, read_toml
from soth_mitm.config.schema import Key, sections, specs
from soth_mitm.config.sections import (
    KIB,
    MAX_BYTES,
    MIB,
    BodyConfig,
    ConnectionPoolConfig,
    FlowRuntimeConfig,
    HandlerConfig,
    Http2Config,
    InterceptionConfig,
    ProcessAttributionConfig,
    StreamsConfig,
    TimeoutsConfig,
    TlsConfig,
    UpstreamConfig,
    WebSocketConfig,
    count,
    milliseconds,
)
from soth_mitm.config.strict import tighten, verify_strict
from soth_mitm.errors import InvalidConfigError

# 107 bytes and a NUL fit into `sockaddr_un` on Linux, 103 and a NUL elsewhere.
_MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103


def _check_socket_mode(text: str) -> None:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError('is not a file mode; write its octal digits as for chmod, such as "0660"')


def _check_socket_path(text: str) -> None:
    if len(os.fsencode(text)) > _MAX_SOCKET_PATH:
        raise ValueError(f"is longer than the {_MAX_SOCKET_PATH} bytes that the address of a socket can hold")


class MitmConfig(Struct, kw_only=True):
    """The whole configuration. Built in code, or read with `from_file` or `from_mapping`; `validate` checks it as a whole."""

    preset: Annotated[
        Literal["none", "strict"],
        Key(
            "`strict` denies by default: what is not listed is blocked, what is listed is never tunnelled, what the handler cannot see "
            "whole is refused. A key that opens one of these beside it is an error (docs/enforcement.md)."
        ),
    ] = "none"
    bind: Annotated[
        str,
        Key(
            "Address to listen on, `host:port` or `[v6]:port`; port 0 takes a free one.",
            check=parse_bind_address,
            example="0.0.0.0:8080",
            frozen=True,
        ),
    ] = "127.0.0.1:8080"
    unix_socket_path: Annotated[
        Path | str | None,
        Key(
            "Unix socket to listen on as well.",
            check=_check_socket_path,
            unset="only `bind` is listened on",
            example="/run/soth-mitm/proxy.sock",
            frozen=True,
        ),
    ] = None
    unix_socket_mode: Annotated[
        str, Key("Who may connect to the Unix socket, as an octal file mode.", check=_check_socket_mode, example="0660", frozen=True)
    ] = "0600"
    intercept_mode: Annotated[
        Literal["enforce", "monitor"],
        Key("`enforce` holds a request until the handler decides; `monitor` shows it to the handler afterwards and blocks nothing."),
    ] = "enforce"
    workers: Annotated[int, Key("Processes that serve the same address.", 1, 1024, frozen=True)] = 1
    http2_enabled: Annotated[
        bool, Key("Offer HTTP/2 to clients and upstreams of intercepted connections, where they choose it (docs/http2.md).")
    ] = True
    http2_max_header_list_size: Annotated[
        int, Key("HTTP/2: the largest header list that is accepted, in bytes as RFC 9113 counts them.", KIB, 16 * MIB)
    ] = 64 * KIB
    http2_max_concurrent_streams: Annotated[int, count("HTTP/2: requests that a client may have open on one connection.")] = 100
    http3_passthrough: Annotated[
        bool, Key("Tunnel a CONNECT that hints at HTTP/3, where the policy would neither intercept nor block the destination.")
    ] = True
    via_header: Annotated[bool, Key("Add `Via` to forwarded requests and responses.")] = False
    max_http_head_bytes: Annotated[
        int, Key("The largest HTTP/1 head; a larger request is answered 431, a larger response 502.", 256, 16 * MIB)
    ] = 64 * KIB
    max_header_fields: Annotated[
        int,
        Key("The most field lines of an HTTP/1 head or trailer section; a request with more is answered 431, a response 502.", 16, 4096),
    ] = 256
    max_in_flight_bytes: Annotated[
        int, Key("Bytes buffered by all connections together; connections are paced when it is reached.", 64 * KIB, MAX_BYTES)
    ] = 64 * MIB
    max_concurrent_flows: Annotated[int, count("Client connections at once; a further one is answered 503.")] = 2048
    max_flow_event_backlog: Annotated[int, count("Events of one flow that may wait for the event sink; more are dropped and counted.")] = (
        8192
    )
    accept_retry_backoff_ms: Annotated[
        int, milliseconds("How long to wait before accepting again when the system has no descriptors left.")
    ] = 100
    prometheus_bind: Annotated[
        str | None,
        Key(
            "Address at which the proxy tells of itself over HTTP, `host:port`: `/metrics`, `/healthz`, `/readyz`, `/status` "
            "(docs/metrics.md). No client of the proxy is let through to it. "
            "Needs the package prometheus-client, which the extra `metrics` brings.",
            check=parse_bind_address,
            unset="nothing is told",
            example="127.0.0.1:9464",
            frozen=True,
        ),
    ] = None
    prometheus_open_to_network: Annotated[
        bool,
        Key(
            "Let `prometheus_bind` be an address that other machines reach. There is neither a password nor TLS: whoever reaches it reads "
            "it.",
            frozen=True,
        ),
    ] = False
    credentials: Annotated[
        list[Credential],
        Key(
            "Values that are put into requests on their way out, one table each, and that clients do not have (docs/credentials.md).",
            example=[Credential("llm-placeholder-0000", "env:LLM_API_KEY", ["llm.example.org:443"])],
        ),
    ] = field(default_factory=list)
    interception: InterceptionConfig = field(default_factory=InterceptionConfig)
    process_attribution: ProcessAttributionConfig = field(default_factory=ProcessAttributionConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    http2: Http2Config = field(default_factory=Http2Config)
    websocket: WebSocketConfig = field(default_factory=WebSocketConfig)
    connection_pool: ConnectionPoolConfig = field(default_factory=ConnectionPoolConfig)
    body: BodyConfig = field(default_factory=BodyConfig)
    streams: StreamsConfig = field(default_factory=StreamsConfig)
    handler: HandlerConfig = field(default_factory=HandlerConfig)
    flow_runtime: FlowRuntimeConfig = field(default_factory=FlowRuntimeConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)

    @classmethod
    def strict(cls, *destinations: str) -> Self:
        """Return a configuration that denies by default: `preset` is strict, and only `destinations` are reached, intercepted.

        Opening what the preset closes makes `validate`, and so `MitmProxyBuilder.build`, raise with the key; docs/enforcement.md says which
        keys those are.
        """
        config = cls(preset="strict")
        tighten(config)
        config.interception.destinations.extend(destinations)
        return config

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, env: Mapping[str, str] | None = os.environ, preset: Literal["none", "strict"] = "none"
    ) -> Self:
        """Read a TOML file, then what the environment overrides; `env=None` leaves the environment out.

        `preset` strict is as if the file began with it. Every key that is written is verified by itself. Call `validate` once the
        configuration is complete; `MitmProxyBuilder.build` does.
        """
        return cls.from_mapping(read_toml(path), env=env, preset=preset)

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, Any], *, env: Mapping[str, str] | None = None, preset: Literal["none", "strict"] = "none"
    ) -> Self:
        """Build from nested mappings as a TOML document has them, then from the variables of `env`; verified as by `from_file`."""
        # first, so that a key which is written beside it is seen to be
        is_strict = "strict" in (preset, mapping.get("preset"), preset_of(env or {}))
        config = cls.strict() if is_strict else cls()
        apply_mapping(config, mapping)
        if env is not None:
            apply_environment(config, env)
        if is_strict:
            config.preset = "strict"
        return config

    def with_environment(self, environ: Mapping[str, str]) -> Self:
        """Return a copy in which the variables `SOTH_MITM__KEY` and `SOTH_MITM__SECTION__KEY` replace what was there.

        `SOTH_MITM__PRESET=strict` tightens what has its default; nothing takes the preset off again.
        """
        config = self.copy()
        is_strict = "strict" in (self.preset, preset_of(environ))
        if is_strict and self.preset != "strict":
            tighten(config)
        apply_environment(config, environ)
        if is_strict:
            config.preset = "strict"
        return config

    def to_mapping(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, all copies; what has no value is None."""
        mapping: dict[str, Any] = {name: {} for name in sections(type(self))}
        for spec in specs(type(self)).values():
            (mapping[spec.section] if spec.section else mapping)[spec.field] = spec.plain(spec.read(self))
        return mapping

    def copy(self) -> Self:
        """Return a copy that shares nothing changeable with this one."""
        parts = (self, *(getattr(self, name) for name in sections(type(self))))
        values = [value for part in parts if isinstance(part, Struct) for value in asdict(part).values()]
        # entry by entry a list of a hundred thousand patterns would take long, and texts need no copies
        texts = {id(value): list(value) for value in values if type(value) is list and all(type(text) is str for text in value)}
        return copy.deepcopy(self, texts)

    def diff(self, other: Self) -> list[str]:
        """Return the dotted keys whose values differ, in the order of the documentation."""
        return [name for name, spec in specs(type(self)).items() if spec.differs(spec.read(self), spec.read(other))]

    def frozen_differences(self, other: Self) -> list[str]:
        """Return the dotted keys of `diff` that a reload cannot change."""
        known = specs(type(self))
        return [name for name in self.diff(other) if known[name].key.frozen]

    def validate(self) -> None:
        """Raise `InvalidConfigError` with the dotted key of the first fault: types, ranges, then what keys ask of each other."""
        for name, section in sections(type(self)).items():
            if not isinstance(getattr(self, name), section):
                raise InvalidConfigError(name, f"expected {section.__name__}, got {getattr(self, name)!r}")
        for spec in specs(type(self)).values():
            spec.verify(spec.read(self))
        self._validate_together()

    def _validate_together(self) -> None:
        if self.prometheus_bind is not None and not self.prometheus_open_to_network:
            host, _ = parse_bind_address(self.prometheus_bind)
            if host != "localhost" and not is_loopback(host):
                raise InvalidConfigError(
                    "prometheus_bind",
                    f"is `{self.prometheus_bind}`, which other machines may reach, and asks nobody for a password; bind a loopback address "
                    "such as `127.0.0.1:9464`, or set `prometheus_open_to_network`",
                )
        if self.preset == "strict":
            upstream = self.upstream
            verify_strict(self, upstream.allowed_addresses, upstream.connect_to)
        if not self.interception.destinations:
            raise InvalidConfigError("interception.destinations", "is empty; name what to intercept, such as `api.example.com:443`")
        verify_credentials(self.credentials, self.interception, self.upstream)
        for given, missing in (("ca_cert_path", "ca_key_path"), ("ca_key_path", "ca_cert_path")):
            if getattr(self.tls, given) is not None and getattr(self.tls, missing) is None:
                raise InvalidConfigError(f"tls.{missing}", f"is needed with `tls.{given}`; set both or neither")
        for given, missing in (("client_cert_path", "client_key_path"), ("client_key_path", "client_cert_path")):
            for pattern in getattr(self.upstream, given):
                if pattern not in getattr(self.upstream, missing):
                    raise InvalidConfigError(f"upstream.{missing}", f"`{pattern}` is missing; `upstream.{given}` has it")
        if self.body.incomplete == "refuse" and not self.body.buffer_request_bodies:
            raise InvalidConfigError(
                "body.incomplete", "is refuse, which needs `body.buffer_request_bodies`; set that to true or this to show"
            )
        for text in self.upstream.allowed_addresses:
            if text in self.upstream.denied_addresses:
                raise InvalidConfigError("upstream.allowed_addresses", f"`{text}` is in `upstream.denied_addresses` as well; remove one")
        if self.http2.initial_window_bytes > self.http2.max_window_bytes:
            raise InvalidConfigError(
                "http2.max_window_bytes", f"is less than `http2.initial_window_bytes`, {self.http2.initial_window_bytes}; raise it"
            )
        for name in ("max_http_head_bytes", "http2_max_header_list_size", "http2.initial_window_bytes", "body.max_size_bytes"):
            size = specs(type(self))[name].read(self)
            if size > self.max_in_flight_bytes:
                raise InvalidConfigError(name, f"{size} is more than `max_in_flight_bytes`, {self.max_in_flight_bytes}; raise that as well")
