"""Where a configuration comes from: TOML, mappings, the environment."""

from pathlib import Path
from typing import Any

import pytest

from soth_mitm.config import MitmConfig
from soth_mitm.config.schema import Kind, Spec, specs
from soth_mitm.errors import InvalidConfigError

SPECS = specs(MitmConfig)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "proxy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_text(spec: Spec, value: Any) -> str:
    match spec.kind:
        case Kind.FLAG:
            return str(value).lower()
        case Kind.TEXTS:
            return ", ".join(value)
        case Kind.PATHS:
            return ",".join(f"{name}={path}" for name, path in value.items())
        case _:
            return str(value)


def other_value(spec: Spec) -> Any:
    if spec.key.example is not None:
        return spec.key.example
    if spec.kind is Kind.FLAG:
        return not spec.default
    if spec.kind is Kind.CHOICE:
        return next(choice for choice in spec.choices if choice != spec.default)
    return spec.default + (1 if spec.default == spec.key.minimum else -1)


def test_file_is_read(tmp_path: Path) -> None:
    text = """
    bind = "[::1]:0"
    [interception]
    destinations = ["api.example.com:443", "*.example.org:*"]
    [tls]
    ca_cert_path = "~/ca.pem"
    [upstream]
    timeout_ms = 5_000
    client_cert_path = { "api.example.com:443" = "~/c.pem" }
    """
    config = MitmConfig.from_file(write(tmp_path, text), env={})
    assert config.bind == "[::1]:0"
    assert config.interception.destinations == ["api.example.com:443", "*.example.org:*"]
    assert config.tls.ca_cert_path == Path.home() / "ca.pem"
    assert config.upstream.timeout_ms == 5000
    assert config.upstream.client_cert_path == {"api.example.com:443": Path.home() / "c.pem"}
    assert config.diff(MitmConfig()) == [
        "bind",
        "interception.destinations",
        "tls.ca_cert_path",
        "upstream.timeout_ms",
        "upstream.client_cert_path",
    ]


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    assert MitmConfig.from_file(str(write(tmp_path, "")), env=None) == MitmConfig()


def test_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "bind = '127.0.0.1:8080'\n[interception\n")
    with pytest.raises(InvalidConfigError) as caught:
        MitmConfig.from_file(path)
    assert caught.value.key == ""
    assert str(path) in str(caught.value) and "line 2" in str(caught.value)


def test_file_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"proxy\.toml is not UTF-8 \(at line 2\)"):
        MitmConfig.from_file(write(tmp_path, b"bind = 'a:1'\nunix_socket_path = '\xff'\n"))


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"cannot read .*absent\.toml: No such file"):
        MitmConfig.from_file(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("mapping", "key", "hint"),
    [
        ({"interception": {"destination": []}}, "interception.destination", "did you mean `interception.destinations`?"),
        ({"destinations": []}, "destinations", "did you mean `interception.destinations`?"),
        ({"handler": {"timeout_ms": 1}}, "handler.timeout_ms", "did you mean `upstream.timeout_ms`?"),
        ({"tls": {"min_versoin": "tls1.3"}}, "tls.min_versoin", "did you mean `tls.min_version`?"),
        ({"upstream": {"ca_cert_path": "x"}}, "upstream.ca_cert_path", "did you mean `tls.ca_cert_path`?"),
        ({"max_concurent_flows": 1}, "max_concurent_flows", "did you mean `max_concurrent_flows`?"),
        ({"body": {"zzzzz": 1}}, "body.zzzzz", "`soth-mitm config --defaults` lists all keys"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest(mapping: dict[str, Any], key: str, hint: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        MitmConfig.from_mapping(mapping)
    assert caught.value.key == key
    assert caught.value.message == f"unknown key; {hint}"


def test_unknown_section_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidConfigError, match=r"^upstram: unknown section; did you mean `\[upstream\]`\?$"):
        MitmConfig.from_mapping({"upstram": {"timeout_ms": 1}})
    with pytest.raises(InvalidConfigError, match=r"^qqq: unknown section; `soth-mitm config --defaults` lists all keys$"):
        MitmConfig.from_mapping({"qqq": {}})


def test_section_that_is_no_table_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"^tls: is a section; write its keys below `\[tls\]`"):
        MitmConfig.from_mapping({"tls": True})


def test_mapping_is_copied() -> None:
    destinations = ["a:1"]
    config = MitmConfig.from_mapping({"interception": {"destinations": destinations}})
    destinations.append("nonsense")
    assert config.interception.destinations == ["a:1"]


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.kind is not Kind.ENTRIES], ids=lambda spec: spec.name)
def test_every_key_can_come_from_the_environment(spec: Spec) -> None:
    value = other_value(spec)
    config = MitmConfig.from_mapping({}, env={spec.environment_name: as_text(spec, value), "HOME": "/root"})
    # the preset sets other keys
    unset = MitmConfig.strict() if spec.name == "preset" else MitmConfig()
    unset.preset = "none"
    assert config.diff(unset) == [spec.name]
    assert spec.plain(spec.read(config)) == value


def test_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "[upstream]\ntimeout_ms = 1\nretry_delay_ms = 2\n")
    monkeypatch.setenv("SOTH_MITM__UPSTREAM__TIMEOUT_MS", "3")
    config = MitmConfig.from_file(path)
    assert (config.upstream.timeout_ms, config.upstream.retry_delay_ms) == (3, 2)
    assert MitmConfig.from_file(path, env=None).upstream.timeout_ms == 1


def test_environment_leaves_the_original_alone() -> None:
    config = MitmConfig()
    changed = config.with_environment({"SOTH_MITM__WORKERS": "2", "SOTH_MITM_STATE_DIR": "/tmp", "PATH": "/bin"})
    assert (config.workers, changed.workers) == (1, 2)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("process_attribution.cache_ttl_ms", "", None),
        ("prometheus_bind", " ", None),
        ("unix_socket_path", "", None),
        ("interception.destinations", "", []),
        ("upstream.client_cert_path", "", {}),
        ("http2_enabled", "OFF", False),
        ("via_header", "1", True),
        ("upstream.timeout_ms", " 70 ", 70),
    ],
)
def test_environment_spellings(name: str, text: str, expected: Any) -> None:
    spec = SPECS[name]
    assert spec.read(MitmConfig().with_environment({spec.environment_name: text})) == expected


@pytest.mark.parametrize(
    ("variable", "text", "key", "message"),
    [
        ("UPSTREAM__TIMEOUT_MS", "5s", "upstream.timeout_ms", "expected a whole number from 1 to 2147483647, got '5s'"),
        ("UPSTREAM__TIMEOUT_MS", "", "upstream.timeout_ms", "expected a whole number from 1 to 2147483647, got ''"),
        ("UPSTREAM__TIMEOUT_MS", "0", "upstream.timeout_ms", "expected a whole number from 1 to 2147483647, got 0"),
        ("HTTP2_ENABLED", "maybe", "http2_enabled", "expected true or false, got 'maybe'"),
        ("INTERCEPT_MODE", "observe", "intercept_mode", 'expected one of "enforce", "monitor", got \'observe\''),
        ("INTERCEPTION__DESTINATIONS", "a:1,b", "interception.destinations", "`b` has no port; write `b:443`"),
        ("INTERCEPTION__DESTINATIONS", "a:1,", "interception.destinations", "`` is empty"),
        ("UPSTREAM__CLIENT_KEY_PATH", "a:1", "upstream.client_key_path", "`a:1` has no path; write `destination=path`"),
    ],
)
def test_bad_value_in_the_environment_names_key_and_variable(variable: str, text: str, key: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        MitmConfig.from_mapping({}, env={f"SOTH_MITM__{variable}": text})
    assert caught.value.key == key
    assert caught.value.message.startswith(message)
    assert caught.value.message.endswith(f"(in the environment variable SOTH_MITM__{variable})")


def test_unknown_variable_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        MitmConfig().with_environment({"SOTH_MITM__UPSTREAM__TIMEOUTMS": "1"})
    assert caught.value.key == "upstream.timeoutms"
    assert "SOTH_MITM__UPSTREAM__TIMEOUTMS; did you mean `SOTH_MITM__UPSTREAM__TIMEOUT_MS`?" in str(caught.value)
    with pytest.raises(InvalidConfigError, match="`soth-mitm config --defaults` lists all keys"):
        MitmConfig().with_environment({"SOTH_MITM__QQQQ": "1"})
