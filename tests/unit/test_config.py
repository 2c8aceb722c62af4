"""Every key of the tree: its default, a change, what it refuses. New keys are covered by being there, or a test here fails."""

import copy
from pathlib import Path
from typing import Any

import pytest

from soth_mitm._dataplane.wire.streams import STREAMS
from soth_mitm.config import MitmConfig
from soth_mitm.config.schema import Kind, Spec, sections, specs
from soth_mitm.config.sections import STREAM_FRAMERS, parse_stream_type
from soth_mitm.errors import InvalidConfigError

SPECS = specs(MitmConfig)

# Strings that a key's own check refuses, and the reason that must be given.
REFUSED_TEXT = {
    "bind": ("127.0.0.1", "has no port"),
    "prometheus_bind": ("127.0.0.1:65536", "not within 0..65535"),
    "unix_socket_mode": ("0800", "not a file mode"),
    "unix_socket_path": ("/" + "x" * 200, "longer than"),
    "interception.destinations": ("api.example.com", "has no port"),
    "upstream.insecure_destinations": ("api.example.com", "has no port"),
    "interception.blocked": ("api.example.com:0", "not within 1..65535"),
    "interception.must_intercept": ("api.example.com:0", "not within 1..65535"),
    "upstream.ciphers": ("", "is no OpenSSL cipher string"),
    "upstream.connect_to": ("api.example.com:443", "has no `=`"),
    "streams.types": ("application/x-lines=lines", "does not end in `=` and one of sse, ndjson"),
    "upstream.denied_addresses": ("metadatas", "is neither an address nor a network"),
    "upstream.allowed_addresses": ("10.0.0.1/8", "has bits set behind its prefix; write `10.0.0.0/8`"),
    "upstream.client_cert_path": ("2001:db8::1:443", "without brackets"),
    "upstream.client_key_path": ("[2001:*]:443", "inside an IPv6 address"),
}

# The defaults that the documentation of the project promises; a changed default is a changed promise.
PROMISED_DEFAULTS = {
    "bind": "127.0.0.1:8080",
    "unix_socket_path": None,
    "intercept_mode": "enforce",
    "workers": 1,
    "http2_enabled": True,
    "http2_max_header_list_size": 65536,
    "http3_passthrough": True,
    "via_header": False,
    "max_http_head_bytes": 65536,
    "accept_retry_backoff_ms": 100,
    "max_flow_event_backlog": 8192,
    "max_in_flight_bytes": 64 * 1024 * 1024,
    "max_concurrent_flows": 2048,
    "interception.destinations": [],
    "interception.passthrough_unlisted": True,
    "process_attribution.enabled": True,
    "process_attribution.lookup_timeout_ms": 1000,
    "process_attribution.cache_capacity": 4096,
    "process_attribution.cache_ttl_ms": None,
    "tls.ca_cert_path": None,
    "tls.ca_key_path": None,
    "tls.min_version": "tls1.2",
    "tls.capture_fingerprint": True,
    "tls.leaf_validity_days": 197,
    "tls.leaf_cache_capacity": 1024,
    "upstream.timeout_ms": 30000,
    "upstream.connect_timeout_ms": 10000,
    "upstream.retry_on_failure": True,
    "upstream.retry_delay_ms": 200,
    "upstream.verify_upstream_tls": True,
    "upstream.h2_header_stage_timeout_ms": 30000,
    "upstream.h2_body_idle_timeout_ms": 120000,
    "upstream.h2_response_overflow_mode": "truncate_continue",
    "connection_pool.max_connections_per_host": 32,
    "connection_pool.idle_timeout_ms": 60000,
    "connection_pool.max_idle_per_host": 8,
    "body.max_size_bytes": 33554432,
    "body.buffer_request_bodies": True,
    "body.buffer_timeout_ms": 10000,
    "body.overflow": "stream",
    "handler.request_timeout_ms": 15000,
    "handler.response_timeout_ms": 15000,
    "handler.recover_from_panics": True,
    "handler.failure_policy": "block",
    "handler.slow_ms": 200,
}


def valid_config() -> MitmConfig:
    config = MitmConfig()
    config.interception.destinations.append("api.example.com:443")
    return config


def changed_value(spec: Spec) -> Any:
    """Return a value other than the default that the key must accept."""
    match spec.kind:
        case Kind.FLAG:
            return not spec.default
        case Kind.NUMBER:
            return spec.key.example if spec.default is None else spec.default + (1 if spec.default == spec.key.minimum else -1)
        case Kind.CHOICE:
            return next(choice for choice in spec.choices if choice != spec.default)
        case _:
            return spec.key.example


def refused_values(spec: Spec) -> list[tuple[Any, str]]:
    """Return values that the key must refuse, each with a part of the message."""
    wrong_types: list[Any] = [object(), 1.5]
    wrong_types += [] if spec.optional else [None]
    wrong_types += ["1"] if spec.kind in (Kind.FLAG, Kind.NUMBER) else [1, True]
    wrong_types += [[1], "a"] if spec.kind is Kind.TEXTS else [["a"]]
    wrong_types += [{"h:1": 1}] if spec.kind is Kind.PATHS else [{"a": "b"}]
    refused = [(value, f"expected {spec.expected}, got ") for value in wrong_types]
    if spec.kind is Kind.NUMBER:
        assert spec.key.minimum is not None and spec.key.maximum is not None, "a number has a range"
        refused += [(value, f"expected {spec.expected}, got {value}") for value in (spec.key.minimum - 1, spec.key.maximum + 1, True)]
    elif spec.kind is Kind.CHOICE:
        refused += [("nonsense", 'expected one of "'), ("", 'expected one of "')]
    elif spec.kind is Kind.PATH:
        refused.append(("", "is an empty path"))
    elif spec.kind is Kind.PATHS:
        refused.append(({"api.example.com:443": ""}, "the path of `api.example.com:443` is empty"))
    if spec.kind in (Kind.TEXT, Kind.TEXTS, Kind.PATHS) or spec.key.check is not None:
        text, reason = REFUSED_TEXT[spec.name]
        refused.append(([text] if spec.kind is Kind.TEXTS else {text: "x.pem"} if spec.kind is Kind.PATHS else text, reason))
    return refused


REFUSALS = [
    pytest.param(spec, value, reason, id=f"{name}-{index}")
    for name, spec in SPECS.items()
    for index, (value, reason) in enumerate(refused_values(spec))
]


@pytest.mark.parametrize("name", PROMISED_DEFAULTS)
def test_default_is_the_promised_one(name: str) -> None:
    assert SPECS[name].read(MitmConfig()) == PROMISED_DEFAULTS[name]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_key_is_described(spec: Spec) -> None:
    assert spec.key.doc.endswith("."), "a sentence"
    assert "\n" not in spec.key.doc
    assert bool(spec.key.unset) == spec.optional, "what none means is said where none is allowed, and only there"
    assert spec.key.example is not None or spec.default not in (None, [], {}), "a key without a default needs an example"
    assert spec.field.endswith(("_ms", "_bytes", "_path", "_days")) or not any(unit in spec.field for unit in ("timeout", "ttl", "delay"))


@pytest.mark.parametrize("section", sections(MitmConfig).values(), ids=sections(MitmConfig))
def test_section_is_described_in_one_line(section: type) -> None:
    assert section.__doc__ and "\n" not in section.__doc__.strip()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_key_can_be_changed(spec: Spec) -> None:
    config = valid_config()
    before = config.copy()
    value = changed_value(spec)
    spec.write(config, copy.deepcopy(value))
    assert spec.read(config) == value != spec.default
    spec.verify(value)
    assert config.diff(before) == before.diff(config) == [spec.name]
    assert config.frozen_differences(before) == ([spec.name] if spec.key.frozen else [])
    assert MitmConfig.from_mapping(config.to_mapping()).diff(config) == []


@pytest.mark.parametrize("spec, value, reason", REFUSALS)
def test_key_refuses(spec: Spec, value: Any, reason: str) -> None:
    config = valid_config()
    spec.write(config, value)
    with pytest.raises(InvalidConfigError) as caught:
        config.validate()
    assert caught.value.key == spec.name
    assert str(caught.value).startswith(f"{spec.name}: ")
    assert reason in caught.value.message

    mapping = {spec.section: {spec.field: value}} if spec.section else {spec.field: value}
    with pytest.raises(InvalidConfigError) as caught:
        MitmConfig.from_mapping(mapping)
    assert (caught.value.key, reason in caught.value.message) == (spec.name, True)


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.kind is Kind.NUMBER], ids=lambda spec: spec.name)
def test_number_accepts_its_bounds(spec: Spec) -> None:
    spec.verify(spec.key.minimum)
    spec.verify(spec.key.maximum)


def test_the_frozen_keys_are_those_that_need_a_new_socket_process_or_ca() -> None:
    frozen = {name for name, spec in SPECS.items() if spec.key.frozen}
    assert frozen == {
        "bind",
        "prometheus_bind",
        "prometheus_open_to_network",
        "unix_socket_mode",
        "unix_socket_path",
        "workers",
        "tls.ca_cert_path",
        "tls.ca_key_path",
    }


def test_quick_start_configuration_is_valid() -> None:
    valid_config().validate()


def test_no_destination_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"^interception\.destinations: is empty; name what to intercept"):
        MitmConfig().validate()


@pytest.mark.parametrize(("given", "missing"), [("ca_cert_path", "ca_key_path"), ("ca_key_path", "ca_cert_path")])
def test_half_a_ca_is_refused(given: str, missing: str) -> None:
    config = valid_config()
    setattr(config.tls, given, "x.pem")
    with pytest.raises(InvalidConfigError, match=f"^tls.{missing}: is needed with `tls.{given}`"):
        config.validate()


@pytest.mark.parametrize(("given", "missing"), [("client_cert_path", "client_key_path"), ("client_key_path", "client_cert_path")])
def test_half_a_client_certificate_is_refused(given: str, missing: str) -> None:
    config = valid_config()
    getattr(config.upstream, given)["api.example.com:443"] = Path("x.pem")
    with pytest.raises(InvalidConfigError, match=f"^upstream.{missing}: `api.example.com:443` is missing; `upstream.{given}` has it"):
        config.validate()
    getattr(config.upstream, missing)["api.example.com:443"] = "y.pem"
    config.validate()


@pytest.mark.parametrize("name", ["max_http_head_bytes", "http2_max_header_list_size", "http2.initial_window_bytes", "body.max_size_bytes"])
def test_a_limit_above_the_budget_is_refused(name: str) -> None:
    config = valid_config()
    config.max_in_flight_bytes = 65536
    config.max_http_head_bytes = config.body.max_size_bytes = 65536
    config.validate()
    SPECS[name].write(config, 65537)
    with pytest.raises(InvalidConfigError, match=f"^{name}: 65537 is more than `max_in_flight_bytes`, 65536; raise that as well"):
        config.validate()


def test_a_window_may_not_grow_to_less_than_it_begins_with() -> None:
    config = valid_config()
    config.http2.initial_window_bytes = config.http2.max_window_bytes = 32768
    config.validate()
    config.http2.max_window_bytes = 32767
    with pytest.raises(InvalidConfigError, match="^http2.max_window_bytes: is less than `http2.initial_window_bytes`, 32768; raise it"):
        config.validate()


def test_a_section_replaced_by_something_else_is_refused() -> None:
    config = valid_config()
    config.tls = {"min_version": "tls1.2"}  # type: ignore[assignment]
    with pytest.raises(InvalidConfigError, match=r"^tls: expected TlsConfig, got \{"):
        config.validate()


def test_an_unknown_attribute_cannot_be_assigned() -> None:
    config = MitmConfig()
    with pytest.raises(AttributeError, match="timeout"):
        config.upstream.timeout = 5  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="port"):
        config.port = 5  # type: ignore[attr-defined]


def test_two_configurations_share_nothing() -> None:
    first, second = valid_config(), MitmConfig()
    assert second.interception.destinations == []
    third = first.copy()
    third.interception.destinations.append("[::1]:443")
    third.upstream.client_cert_path["a:1"] = "x"
    third.body.overflow = "reject"
    assert first.diff(valid_config()) == []
    assert first.diff(third) == ["interception.destinations", "upstream.client_cert_path", "body.overflow"]
    mapping = first.to_mapping()
    mapping["interception"]["destinations"].clear()
    assert first.interception.destinations == ["api.example.com:443"]
    assert SPECS["interception.destinations"].default == []


def test_a_path_and_its_text_do_not_differ() -> None:
    first, second = valid_config(), valid_config()
    first.tls.ca_cert_path, second.tls.ca_cert_path = "ca.pem", Path("ca.pem")
    first.upstream.client_key_path, second.upstream.client_key_path = {"a:1": "k"}, {"a:1": Path("k")}
    assert first.diff(second) == []


def test_incomplete_bodies_cannot_be_refused_where_none_is_collected() -> None:
    config = MitmConfig()
    config.interception.destinations.append("a.example:443")
    config.body.incomplete, config.body.buffer_request_bodies = "refuse", False
    with pytest.raises(InvalidConfigError, match="buffer_request_bodies") as refused:
        config.validate()
    assert refused.value.key == "body.incomplete"
    config.body.buffer_request_bodies = True
    config.validate()


def test_a_stream_type_is_a_media_type_and_a_framer() -> None:
    assert parse_stream_type(" Application/Vnd.X+lines = NDJSON") == ("application/vnd.x+lines", "ndjson")
    assert set(STREAM_FRAMERS) == set(STREAMS)
    for entry in ("application/x", "=ndjson", "text=ndjson", "text/x; a=b=ndjson", "text/x=", "a/b/c=sse"):
        with pytest.raises(ValueError, match=r"media type|does not end in"):
            parse_stream_type(entry)
