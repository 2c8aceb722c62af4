"""What the policy says of a target."""

import pytest

from soth_mitm.config import MitmConfig
from soth_mitm.policy import Action, Policy


def policy(*destinations: str, passthrough_unlisted: bool = True, must_intercept: tuple[str, ...] = (), **keys: object) -> Policy:
    config = MitmConfig()
    config.interception.destinations.extend(destinations)
    config.interception.passthrough_unlisted = passthrough_unlisted
    config.interception.must_intercept.extend(must_intercept)
    for name, value in keys.items():
        setattr(config.interception, name, value)
    return Policy(config)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("api.example.com", 443),
        ("API.example.com.", 443),
        ("xn--bcher-kva.example", 8443),
        ("Bücher.example", 1),
        ("[2001:DB8:0:0::1]", 443),
        ("2001:db8::1", 443),
        ("a.b.example.org", 8080),
    ],
)
def test_listed_targets_are_intercepted_in_any_spelling(host: str, port: int) -> None:
    decision = policy("api.example.com:443", "bücher.example:*", "[2001:db8::1]:443", "*.example.org:8080").decide(host, port)
    assert decision == (Action.INTERCEPT, "interception_scope_match")


@pytest.mark.parametrize(
    ("passthrough_unlisted", "action", "reason"),
    [(True, Action.TUNNEL, "passthrough_unlisted"), (False, Action.BLOCK, "destination_not_allowed")],
)
def test_unlisted_targets(passthrough_unlisted: bool, action: Action, reason: str) -> None:
    rules = policy("api.example.com:443", passthrough_unlisted=passthrough_unlisted)
    for host, port in [("api.example.com", 8443), ("example.com", 443), ("api.example.com.evil.test", 443), ("::1", 443)]:
        assert rules.decide(host, port) == (action, reason)


@pytest.mark.parametrize("host", ["", "a b", "127.1", "a\r\nb", "[::1"])
def test_a_host_that_is_none_is_the_callers_error(host: str) -> None:
    with pytest.raises(ValueError, match="^has "):
        policy("*:*").decide(host, 443)


def test_must_intercept_is_its_own_list() -> None:
    rules = policy("*:443", must_intercept=("*.bank.test:443",))
    assert rules.must_intercept("WWW.bank.test.", 443)
    assert not rules.must_intercept("bank.test", 443)
    assert not rules.must_intercept("www.bank.test", 8443)


def test_a_later_change_of_the_configuration_does_not_reach_a_policy() -> None:
    config = MitmConfig()
    config.interception.destinations.append("a:1")
    rules = Policy(config)
    config.interception.destinations.append("b:1")
    config.interception.passthrough_unlisted = False
    assert rules.decide("b", 1) == (Action.TUNNEL, "passthrough_unlisted")


class TestBlocked:
    @pytest.mark.parametrize("passthrough_unlisted", [True, False])
    def test_blocked_comes_first(self, passthrough_unlisted: bool) -> None:
        rules = policy("*.example.com:*", passthrough_unlisted=passthrough_unlisted, blocked=["API.example.com.:443", "evil.test:*"])
        for host, port in [("api.example.com", 443), ("API.Example.COM.", 443), ("evil.test", 1)]:
            decision = rules.decide(host, port)
            assert decision == (Action.BLOCK, "destination_blocked") and rules.is_final(decision)
            assert "interception.blocked" in decision.text(host, port)
        assert rules.decide("api.example.com", 8443).action is Action.INTERCEPT

    def test_unlisted_is_not_final(self) -> None:
        rules = policy("a:1", passthrough_unlisted=False)
        assert not rules.is_final(rules.decide("b", 1))


class TestNames:
    """What may be named on a connection to another target."""

    @pytest.mark.parametrize(
        ("passthrough_unlisted", "check_names", "forbidden"),
        [
            (True, "strict", {"blocked.test"}),
            (True, "off", {"blocked.test"}),
            (False, "strict", {"blocked.test", "unlisted.test"}),
            (False, "off", {"blocked.test"}),
        ],
    )
    def test_objections(self, passthrough_unlisted: bool, check_names: str, forbidden: set[str]) -> None:
        rules = policy("listed.test:443", passthrough_unlisted=passthrough_unlisted, check_names=check_names, blocked=["blocked.test:*"])
        names = ("listed.test", "unlisted.test", "blocked.test")
        assert {name for name in names if rules.objection(name, 443) is not None} == forbidden

    def test_the_port_counts(self) -> None:
        rules = policy("listed.test:443", passthrough_unlisted=False)
        assert rules.objection("listed.test", 443) is None
        assert rules.objection("listed.test", 8443) is not None
