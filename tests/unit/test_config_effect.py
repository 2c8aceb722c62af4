"""Keys that are set and do nothing are warned about."""

from typing import Any

import pytest

from soth_mitm import MitmConfig
from soth_mitm.config.effect import IDLE, without_effect
from soth_mitm.config.not_built import LATER_KEYS, NEVER, SATISFIED_LATER
from soth_mitm.config.reference import reference_markdown
from soth_mitm.config.schema import Kind, specs

SPECS = specs(MitmConfig)


def changed(name: str, config: MitmConfig | None = None) -> MitmConfig:
    """Return a configuration in which a key has another value than its default."""
    config = (
        MitmConfig.from_mapping({"interception": {"destinations": ["a.example:443", "llm.example.org:443"]}}) if config is None else config
    )
    spec = SPECS[name]
    value: Any = spec.key.example
    if spec.kind is Kind.FLAG:
        value = not spec.default
    elif spec.kind is Kind.NUMBER and spec.default is not None:
        value = spec.default + 1
    elif spec.kind is Kind.CHOICE:
        value = next(choice for choice in spec.choices if choice != spec.default)
    spec.write(config, value)
    return config


def test_defaults_are_silent() -> None:
    assert without_effect(MitmConfig()) == []
    assert without_effect(MitmConfig.strict("a.example:443")) == []


@pytest.mark.parametrize("name", sorted(LATER_KEYS))
def test_a_key_that_is_not_built_yet_is_named(name: str) -> None:
    config = changed(name)
    config.validate()
    if name in SATISFIED_LATER:
        assert SPECS[name].read(config) == SATISFIED_LATER[name] and without_effect(config) == []
    else:
        reason = NEVER.get(name, "this build does not have what it is about")
        assert without_effect(config) == [f"{name} has no effect: {reason}"]


def test_what_is_satisfied_or_never_built_is_not_built_yet() -> None:
    assert set(SATISFIED_LATER) | set(NEVER) <= LATER_KEYS


def test_a_wait_that_the_event_loop_decides_on_is_not_promised() -> None:
    (sentence,) = without_effect(changed("accept_retry_backoff_ms"))
    assert "uvloop drops a client at once" in sentence
    (row,) = [line for line in reference_markdown().splitlines() if line.startswith("| `accept_retry_backoff_ms`")]
    assert "No effect: the event loop accepts connections" in row and "yet" not in row


# Each reason, with what makes it hold
REASONS: dict[str, dict[str, Any]] = {
    "tls.learn_bypass is false": {"tls.learn_bypass": False},
    "body.buffer_request_bodies is false": {"body.buffer_request_bodies": False},
    "prometheus_bind is not set": {"prometheus_bind": None},
    "unix_socket_path is not set": {"unix_socket_path": None},
    "process_attribution.enabled is false": {"process_attribution.enabled": False},
    "upstream.retry_on_failure is false": {"upstream.retry_on_failure": False},
    "upstream.verify_upstream_tls is false": {"upstream.verify_upstream_tls": False},
    "upstream.denied_addresses is empty": {"upstream.denied_addresses": []},
    "connection_pool.max_idle_per_host is 0": {"connection_pool.max_idle_per_host": 0},
    "intercept_mode is monitor": {"intercept_mode": "monitor"},
    "http2_enabled is false": {"http2_enabled": False},
}
# ... and what makes it not hold
OTHERWISE: dict[str, Any] = {
    "tls.learn_bypass": True,
    "body.buffer_request_bodies": True,
    "prometheus_bind": "127.0.0.1:9464",
    "unix_socket_path": "/run/proxy.sock",
    "process_attribution.enabled": True,
    "upstream.retry_on_failure": True,
    "upstream.verify_upstream_tls": True,
    "upstream.denied_addresses": ["private"],
    "connection_pool.max_idle_per_host": 8,
    "intercept_mode": "enforce",
    "http2_enabled": True,
}


@pytest.mark.parametrize(("name", "because"), [(name, idle.because) for idle in IDLE for name in idle.keys])
def test_a_key_that_another_one_turns_off_is_named(name: str, because: str) -> None:
    config = changed(name)
    for other, value in REASONS[because].items():
        SPECS[other].write(config, value)
    assert f"{name} has no effect: {because}" in without_effect(config)
    for other in REASONS[because]:
        SPECS[other].write(config, OTHERWISE[other])
    assert [sentence for sentence in without_effect(config) if sentence.startswith(name)] == []
