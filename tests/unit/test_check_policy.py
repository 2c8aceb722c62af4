"""`soth-mitm check-policy`: what would happen to a connection, by which pattern of which key."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from soth_mitm.cli import check_command
from soth_mitm.cli.commands import cli

LISTED = ("--destination", "*.example.com:443", "--destination", "api.example.com:443")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ("check-policy", *arguments))


def said(*arguments: str) -> dict[str, Any]:
    result = call(*arguments, "--json")
    fields: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (10 if fields["action"] == "block" else 0)
    return fields


@pytest.mark.parametrize(
    ("arguments", "action", "key", "pattern"),
    [
        (("api.example.com:443", *LISTED), "intercept", "interception.destinations", "api.example.com:443"),
        (("https://API.example.com./v1?x=1", *LISTED), "intercept", "interception.destinations", "api.example.com:443"),
        (("wss://user@a.example.com", *LISTED), "intercept", "interception.destinations", "*.example.com:443"),
        (("http://a.example.com/", *LISTED), "tunnel", "interception.passthrough_unlisted", None),
        (("http://a.example.com/", *LISTED, "--block-unlisted"), "block", "interception.passthrough_unlisted", None),
        (("http://a.example.com/", *LISTED, "--strict"), "block", "interception.passthrough_unlisted", None),
        (("[::1]:443", "--destination", "[::1]:*"), "intercept", "interception.destinations", "[::1]:*"),
        (("169.254.169.254:80", "--destination", "*:80", "--strict"), "block", "upstream.denied_addresses", None),
        (("http://[::ffff:169.254.169.254]/", "--destination", "*:80", "--strict"), "block", "upstream.denied_addresses", None),
    ],
)
def test_what_happens_and_why(arguments: tuple[str, ...], action: str, key: str, pattern: str | None) -> None:
    fields = said(*arguments)
    assert (fields["action"], fields["key"], fields["pattern"]) == (action, key, pattern)
    assert (pattern or key.rpartition(".")[2]) in fields["because"] or "is denied by `metadata`" in fields["because"]
    text = call(*arguments)
    assert text.stdout.splitlines()[0].endswith(f"  {action}")
    assert fields["because"] in text.stdout


def test_a_blocked_pattern_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "soth.toml"
    path.write_text('[interception]\ndestinations = ["*:443"]\nblocked = ["*.evil.example:*"]\n', encoding="utf-8")
    fields = said("a.evil.example:443", "--config", str(path))
    assert (fields["action"], fields["key"], fields["pattern"]) == ("block", "interception.blocked", "*.evil.example:*")


def test_each_key_that_opens_is_named(tmp_path: Path) -> None:
    path = tmp_path / "open.toml"
    path.write_text(
        'intercept_mode = "enforce"\n'
        '[interception]\ndestinations = ["*:443"]\nunknown_protocol = "tunnel"\ncheck_names = "off"\n'
        '[tls]\nlearn_bypass = true\n[handler]\nfailure_policy = "allow"\n[body]\nincomplete = "show"\n'
        '[upstream]\nverify_upstream_tls = false\nconnect_to = ["a.example:443=127.0.0.1:8443"]\n',
        encoding="utf-8",
    )
    keys = {opening["key"] for opening in said("a.example:443", "--config", str(path))["open"]}
    assert keys == {
        "interception.must_intercept",
        "interception.unknown_protocol",
        "interception.check_names",
        "tls.learn_bypass",
        "handler.failure_policy",
        "body.incomplete",
        "upstream.verify_upstream_tls",
        "upstream.connect_to",
    }
    assert said("a.example.com:443", *LISTED, "--strict")["open"] == []


def test_addresses_are_judged_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_command, "system_addresses", lambda host: ("169.254.169.254", "192.0.2.1"))
    fields = said("a.example.com:443", *LISTED, "--strict", "--resolve")
    assert fields["action"] == "intercept"
    assert [(each["address"], each["denied"] is not None) for each in fields["addresses"]] == [
        ("169.254.169.254", True),
        ("192.0.2.1", False),
    ]
    monkeypatch.setattr(check_command, "system_addresses", lambda host: ("169.254.169.254",))
    assert said("a.example.com:443", *LISTED, "--strict", "--resolve")["action"] == "block"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("api.example.com", *LISTED), 2, "has no port; write `api.example.com:443`"),
        (("api.example.com:443",), 20, "interception.destinations: nothing to intercept; add --destination"),
        (("ftp://api.example.com/", *LISTED), 2, "has the scheme `ftp`"),
        # clients disagree on where these go
        (("https://a.example.com\\@evil.test/", *LISTED), 2, "has U+005C, which no URL contains"),
        (("https://evil.te\tst/", *LISTED), 2, "has U+0009, which no URL contains"),
        ((" https://evil.test/", *LISTED), 2, "has U+0020, which no URL contains"),
        # which the proxy refuses, whatever is listed
        (("[fe80::1%eth0]:443", *LISTED), 2, "has a zone, which no client can ask for"),
        (("https://[::1%25lo]/", *LISTED), 2, "has a zone, which no client can ask for"),
        (("https://127.1/", *LISTED), 2, "neither a name nor an IPv4 address"),
    ],
)
def test_what_cannot_be_checked(arguments: tuple[str, ...], code: int, words: str) -> None:
    result = call(*arguments)
    assert (result.exit_code, words in result.stderr) == (code, True)
