"""The preset `strict`: what it sets, wherever it is written, and what it refuses beside it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import InvalidConfigError, MitmConfig, MitmProxyBuilder
from soth_mitm.address_guard import AddressGuard
from soth_mitm.config.schema import Kind, specs
from soth_mitm.config.strict import STRICT
from soth_mitm.openings import openings
from soth_mitm.policy import Policy
from support.source import ROOT

HOST = "api.example.com"
SPECS = specs(MitmConfig)
ENV = {"SOTH_MITM__PRESET": "strict"}
LISTED = {"interception": {"destinations": [f"{HOST}:443"]}}
PAGE = (ROOT / "docs/enforcement.md").read_text(encoding="utf-8")
# Each key of the preset with a value that opens something
OPENING = {
    "intercept_mode": "monitor",
    "interception.passthrough_unlisted": True,
    "interception.unknown_protocol": "tunnel",
    "interception.check_names": "off",
    "tls.learn_bypass": True,
    "upstream.verify_upstream_tls": False,
    "upstream.insecure_destinations": ["*.example.com:*", "staging.test:443"],
    "body.buffer_request_bodies": False,
    "body.incomplete": "show",
    "handler.failure_policy": "allow",
}


def nested(name: str, value: Any) -> dict[str, Any]:
    section, _, field = name.rpartition(".")
    return {section: {field: value}} if section else {field: value}


def merged(*mappings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            found[name] = {**found.get(name, {}), **value} if isinstance(value, dict) else value
    return found


def made_in_code() -> MitmConfig:
    return MitmConfig.strict(f"{HOST}:443")


def made_in_every_way(tmp_path: Path) -> dict[str, MitmConfig]:
    path = tmp_path / "strict.toml"
    # the preset holds for what is written before it as well
    path.write_text(f'preset = "strict"\n[interception]\ndestinations = ["{HOST}:443"]\n', encoding="utf-8")
    bare = tmp_path / "bare.toml"
    bare.write_text(f'[interception]\ndestinations = ["{HOST}:443"]\n', encoding="utf-8")
    plain = MitmConfig()
    plain.interception.destinations.append(f"{HOST}:443")
    return {
        "code": made_in_code(),
        "file": MitmConfig.from_file(path, env=None),
        "file and environment that takes it off": MitmConfig.from_file(path, env={"SOTH_MITM__PRESET": "none"}),
        "environment beside a file": MitmConfig.from_file(bare, env=ENV),
        "environment beside code": plain.with_environment(ENV),
        "argument": MitmConfig.from_file(bare, env=None, preset="strict"),
        "argument and a file that takes it off": MitmConfig.from_mapping({"preset": "none", **LISTED}, preset="strict"),
        "mapping with the preset last": MitmConfig.from_mapping({**LISTED, "preset": "strict"}),
        "written out and read": MitmConfig.from_mapping(made_in_code().to_mapping()),
    }


def test_each_way_gives_the_same(tmp_path: Path) -> None:
    for way, config in made_in_every_way(tmp_path).items():
        config.validate()
        assert config.diff(made_in_code()) == [], way
        assert {name: SPECS[name].read(config) for name in STRICT} == STRICT, way


def test_nothing_is_left_open() -> None:
    config = made_in_code()
    assert openings(config, Policy(config), HOST, 443) == []


def test_without_the_preset_nothing_changes() -> None:
    assert MitmConfig.from_mapping({"preset": "none"}).diff(MitmConfig()) == []


def test_every_key_of_the_preset_has_a_case() -> None:
    # what is denied besides opens nothing
    assert set(OPENING) == set(STRICT) - {"upstream.denied_addresses"}


@pytest.mark.parametrize("name", OPENING)
def test_a_key_that_opens_is_refused_wherever_it_is_written(name: str) -> None:
    value = OPENING[name]
    by_code = made_in_code()
    SPECS[name].write(by_code, value)
    text = str(value).lower() if SPECS[name].kind is Kind.FLAG else ",".join(value) if isinstance(value, list) else value
    found = re.escape(str(value)) if isinstance(value, list) else text
    variable = {SPECS[name].environment_name: text}
    for config in (
        by_code,
        MitmConfig.from_mapping(merged({"preset": "strict"}, LISTED, nested(name, value))),
        MitmConfig.from_mapping(merged(LISTED, nested(name, value)), env=ENV),
        MitmConfig.from_mapping(merged(LISTED, nested(name, value)), preset="strict"),
        MitmConfig.from_mapping(LISTED, env={**ENV, **variable}),
        made_in_code().with_environment(variable),
    ):
        with pytest.raises(InvalidConfigError, match=f'^{name}: is {found}, which `preset = "strict"` does not allow') as caught:
            MitmProxyBuilder(config).build()
        assert caught.value.key == name


def test_destinations_are_needed() -> None:
    with pytest.raises(InvalidConfigError, match=r"^interception\.destinations: is empty"):
        MitmConfig.strict().validate()


def test_two_presets_share_no_list() -> None:
    MitmConfig.strict().upstream.denied_addresses.append("private")
    assert MitmConfig.strict().upstream.denied_addresses == ["metadata", "link_local"]


def test_addresses_stay_denied_whatever_else_is_listed() -> None:
    config = MitmConfig.from_mapping(merged({"preset": "strict"}, LISTED, {"upstream": {"denied_addresses": ["private"]}}))
    config.upstream.allowed_addresses = ["10.1.2.3", "fe80::1"]
    config.validate()
    guard = AddressGuard(config)
    assert [guard.refusal(address) is not None for address in ("169.254.169.254", "169.254.1.1", "10.1.1.1")] == [True] * 3
    assert [guard.refusal(address) is not None for address in ("10.1.2.3", "fe80::1", "8.8.8.8")] == [False] * 3
    refusal = guard.refusal("169.254.169.254")
    assert refusal is not None and '`metadata`, because preset = "strict"' in refusal.text("169.254.169.254")
    config.upstream.allowed_addresses = ["link_local"]
    with pytest.raises(InvalidConfigError, match=r"^upstream\.allowed_addresses: opens all of `link_local`"):
        config.validate()


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("10.0.0.1:8000", True),
        ("https://10.0.0.1:8000", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("http://10.0.0.1:8000", False),
        ("http://localhost:8000", False),
    ],
)
def test_nothing_is_sent_in_clear_over_a_network(place: str, allowed: bool) -> None:
    """What is reached at an address of this machine crosses no network; where a name leads is known later only."""
    config = made_in_code()
    config.upstream.connect_to = [f"{HOST}:443={place}"]
    if allowed:
        config.validate()
        return
    with pytest.raises(InvalidConfigError, match=r"^upstream\.connect_to: `.*` leads to a plain HTTP server") as caught:
        config.validate()
    assert caught.value.key == "upstream.connect_to"


def test_the_page_says_what_the_preset_sets() -> None:
    block = PAGE.partition("```toml\n")[2].partition("```")[0]
    written = tomllib.loads(block)
    assert written == merged(*(nested(name, value) for name, value in STRICT.items()))


def test_the_page_has_a_line_for_each_key_that_opens() -> None:
    assert [name for name in STRICT if f"\n| `{name}" not in PAGE] == []


def test_policy_forbids_tunnels() -> None:
    policy = Policy(made_in_code())
    assert policy.tunnel_forbidden_by(HOST, 443) == '`preset = "strict"`' and policy.must_intercept(HOST, 443)
    # neither what is not listed: `on_connect` may have it intercepted, and no more
    assert policy.tunnel_forbidden_by("other.example.com", 443) == '`preset = "strict"`'
    config = MitmConfig.from_mapping(LISTED)
    assert Policy(config).tunnel_forbidden_by(HOST, 443) is None
    config.interception.must_intercept.append("*.example.com:443")
    assert Policy(config).tunnel_forbidden_by(HOST, 443) == "`*.example.com:443` in interception.must_intercept"
