"""Credentials in the configuration: what is refused, with which key, and that no value is shown."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm import Credential, InvalidConfigError, MitmConfig, RawRequest, Secret
from soth_mitm.destinations import DestinationPattern

PLACEHOLDER = "llm-placeholder-0000"
VALUE = "sk-live-0123456789"
PLACE = "api.example.com:443"


class Vault:
    ttl = 60.0

    async def resolve(self, name: str, request: RawRequest) -> Secret:
        return Secret(VALUE)


def valid(*credentials: Credential) -> MitmConfig:
    config = MitmConfig()
    config.interception.destinations += [PLACE, "*.example.org:*"]
    config.credentials += credentials
    return config


def refused(config: MitmConfig) -> InvalidConfigError:
    with pytest.raises(InvalidConfigError) as caught:
        config.validate()
    assert VALUE not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("source", ["env:LLM_KEY", "file:/run/secrets/key", "command:pass show llm", Secret(VALUE), Vault()])
def test_a_credential_of_each_source_is_valid(source: Any) -> None:
    credential = Credential(PLACEHOLDER, source, [PLACE])
    valid(credential).validate()
    assert credential.place == ("header:authorization",)
    assert credential.redact and credential.ttl == (60.0 if isinstance(source, Vault) else 300.0)


def test_it_shows_no_value() -> None:
    credential = Credential(PLACEHOLDER, Secret(VALUE), [PLACE], place=["basic", "query:key"], redact=False)
    config = valid(credential, Credential("another-placeholder", "command:get --token " + VALUE, [PLACE]))
    for shown in (repr(credential), str(credential), repr(config), repr(config.to_mapping()), repr(config.copy())):
        assert VALUE not in shown
    assert repr(credential) == (
        "Credential('llm-placeholder-0000', 'Secret(***)', ['api.example.com:443'], place=['basic', 'query:key'], redact=False)"
    )
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(credential)


def test_it_cannot_be_changed_and_is_shared_by_copies() -> None:
    credential = Credential(PLACEHOLDER, Secret(VALUE), [PLACE])
    with pytest.raises(AttributeError):
        credential.redact = False  # type: ignore[misc]
    assert copy.deepcopy(credential) is credential
    config = valid(credential)
    other = config.copy()
    assert other.credentials == config.credentials and other.credentials is not config.credentials


def test_another_value_is_a_difference() -> None:
    one = valid(Credential(PLACEHOLDER, Secret(VALUE), [PLACE]))
    same = valid(Credential(PLACEHOLDER, Secret(VALUE), [PLACE]))
    other = valid(Credential(PLACEHOLDER, Secret(VALUE + "0"), [PLACE]))
    assert one.diff(same) == []
    assert one.diff(other) == ["credentials"]


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("placeholder", {"placeholder": "x" * 15}, "has 15 characters, and needs 16"),
        ("placeholder", {"placeholder": "sk live 0123456789"}, "not printable ASCII"),
        ("placeholder", {"placeholder": 5}, "expected a string, got int"),
        ("source", {"source": VALUE}, "a value itself does not belong here"),
        ("source", {"source": "vault:" + VALUE}, "a value itself does not belong here"),
        ("source", {"source": "env:"}, "is none of"),
        ("source", {"source": "command:a 'b"}, "a command that cannot be read"),
        ("source", {"source": 5}, "expected a string, a Secret or an object with `resolve`, got int"),
        ("source", {"source": Vault}, "got type"),
        ("source", {"source": Secret("short")}, "the value has 5 bytes, and `redact` needs 8"),
        ("destinations", {"destinations": []}, "is empty"),
        ("destinations", {"destinations": PLACE}, "expected a list of strings, got str"),
        ("destinations", {"destinations": ["api.example.com"]}, "has no port"),
        ("destinations", {"destinations": ["*:443"]}, "stands for every host"),
        ("place", {"place": []}, "is empty"),
        ("place", {"place": ["cookie"]}, "is no place; places are `header:NAME`, `basic`"),
        ("place", {"place": ["header:"]}, "names no header; write `header:NAME`"),
        ("place", {"place": ["query"]}, "is no place"),
        ("place", {"place": ["header:x y"]}, "names no header"),
        ("place", {"place": ["header:Host"]}, "names a header that the proxy sets itself"),
        ("redact", {"redact": "yes"}, "expected true or false"),
        ("ttl_ms", {"ttl_ms": 0}, "expected a whole number from 1"),
    ],
)
def test_what_is_wrong_is_named_in_code_and_in_a_file(name: str, change: dict[str, Any], message: str) -> None:
    table: dict[str, Any] = {"placeholder": PLACEHOLDER, "source": "env:LLM_KEY", "destinations": [PLACE], **change}
    with pytest.raises(InvalidConfigError) as caught:
        Credential(**table)
    assert caught.value.key == f"credentials.{name}" and message in caught.value.message and VALUE not in str(caught.value)
    first = {"placeholder": "another-placeholder", "source": "env:OTHER", "destinations": [PLACE]}
    with pytest.raises(InvalidConfigError) as caught:
        MitmConfig.from_mapping({"credentials": [first, table]})
    assert caught.value.key == f"credentials[1].{name}" and message in caught.value.message and VALUE not in str(caught.value)


@pytest.mark.parametrize(
    "document, key, message",
    [
        ({"credentials": {"ttl_ms": 5}}, "credentials", "expected a list of tables, got dict; write each below `[[credentials]]`"),
        ({"credentials": ["x"]}, "credentials", "expected a list of tables, got list"),
        ({"credentials": [{"placeholdr": VALUE}]}, "credentials[0].placeholdr", "unknown key; did you mean `placeholder`?"),
        ({"credentials": [{"value": VALUE}]}, "credentials[0].value", "unknown key; its keys are placeholder, source"),
        ({"credentials": [{"placeholder": PLACEHOLDER}]}, "credentials[0].source", "is missing"),
    ],
)
def test_a_document_that_is_wrong(document: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        MitmConfig.from_mapping(document)
    assert (caught.value.key, message in caught.value.message) == (key, True)
    assert VALUE not in str(caught.value)


def test_the_environment_cannot_say_it() -> None:
    with pytest.raises(InvalidConfigError, match="cannot be set in the environment") as caught:
        MitmConfig.from_mapping({}, env={"SOTH_MITM__CREDENTIALS": VALUE})
    assert caught.value.key == "credentials" and VALUE not in str(caught.value)


def test_it_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "soth-mitm.toml"
    path.write_text(
        f"""
        [interception]
        destinations = ["{PLACE}"]
        [[credentials]]
        placeholder = "{PLACEHOLDER}"
        source = "env:LLM_KEY"
        destinations = ["{PLACE}"]
        place = ["header:x-api-key", "basic"]
        redact = false
        ttl_ms = 1000
        """
    )
    config = MitmConfig.from_file(path, env=None)
    config.validate()
    place = ["header:x-api-key", "basic"]
    assert config.credentials == [Credential(PLACEHOLDER, "env:LLM_KEY", [PLACE], place=place, redact=False, ttl_ms=1000)]
    assert MitmConfig.from_mapping(config.to_mapping()).credentials == config.credentials


@pytest.mark.parametrize("second", [PLACEHOLDER, PLACEHOLDER + "1", "a-" + PLACEHOLDER, PLACEHOLDER[:16]])
def test_no_placeholder_is_a_part_of_another(second: str) -> None:
    error = refused(valid(Credential(PLACEHOLDER, "env:A", [PLACE]), Credential(second, "env:B", [PLACE])))
    assert error.key == "credentials[1].placeholder" and "of credentials[0]" in error.message


def test_a_destination_must_be_intercepted_and_verified() -> None:
    def config(*destinations: str) -> MitmConfig:
        return valid(Credential(PLACEHOLDER, "env:A", destinations))

    config(PLACE, "a.example.org:443", "*.b.example.org:*").validate()
    for text in ("other.example.com:443", "api.example.com:8443", "*.example.com:443", "example.org:443", "api.example.com:*"):
        error = refused(config(PLACE, text))
        assert error.key == "credentials[0].destinations" and f"`{text}` is not intercepted" in error.message

    unverified = config(PLACE)
    unverified.upstream.verify_upstream_tls = False
    assert "is not verified: `upstream.verify_upstream_tls` is false" in refused(unverified).message
    insecure = config("*.example.org:443")
    insecure.upstream.insecure_destinations.append("staging.*:*")
    assert "is not verified where `staging.*:*`" in refused(insecure).message
    plain = config(PLACE)
    plain.upstream.connect_to.append("*:443=http://127.0.0.1:80")
    assert "is reached without TLS" in refused(plain).message
    plain.upstream.connect_to[:] = ["*:443=https://127.0.0.1:80"]
    plain.validate()


def test_something_else_in_the_list_is_refused_and_not_shown() -> None:
    config = valid()
    config.credentials = [VALUE]  # type: ignore[list-item]
    error = refused(config)
    assert error.key == "credentials" and error.message == "expected a list of tables, got list"


HOSTS = st.text("ab*.", min_size=1, max_size=6)


def pattern(host: str) -> DestinationPattern:
    return DestinationPattern(host, 443)


@given(HOSTS, HOSTS, st.lists(st.text("ab.", max_size=6), max_size=20))
def test_patterns_that_cover_and_overlap(one: str, other: str, hosts: list[str]) -> None:
    """What is in both overlaps; what covers has every host of the other; a glob overlaps what it covers."""
    first, second = pattern(one), pattern(other)
    hosts += [one.replace("*", ""), other.replace("*", ""), one.replace("*", "ab"), other.replace("*", "b")]
    for host in hosts:
        if first.matches(host, 443) and second.matches(host, 443):
            assert first.overlaps(second) and second.overlaps(first)
        if first.covers(second) and second.matches(host, 443):
            assert first.matches(host, 443)
    if first.covers(second):
        assert first.overlaps(second)


@pytest.mark.parametrize(
    "one, other, overlap",
    [
        ("a*b:1", "*c:1", False),
        ("a*b:1", "ac*:1", True),
        ("*.example.com:1", "api.*:1", True),
        ("*.example.com:1", "api.*:2", False),
        ("*.example.com:*", "api.*:2", True),
        ("a.example.com:1", "b.example.com:1", False),
    ],
)
def test_overlaps(one: str, other: str, overlap: bool) -> None:
    first, second = DestinationPattern.parse(one), DestinationPattern.parse(other)
    assert first.overlaps(second) is second.overlaps(first) is overlap
