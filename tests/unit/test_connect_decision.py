"""`ConnectDecision`: immutable values, checked where they are made."""

import copy
import pickle
from typing import Any

import pytest

from soth_mitm import ConnectDecision
from soth_mitm.errors import DecisionError
from soth_mitm.policy import Action

VALUES = [ConnectDecision.INTERCEPT, ConnectDecision.TUNNEL, ConnectDecision.block("no"), ConnectDecision.block("later", 503)]


def test_they_say_what_they_are() -> None:
    assert [repr(value) for value in VALUES] == [
        "ConnectDecision.INTERCEPT",
        "ConnectDecision.TUNNEL",
        "ConnectDecision.block('no')",
        "ConnectDecision.block('later', 503)",
    ]
    assert [value.action for value in VALUES] == [Action.INTERCEPT, Action.TUNNEL, Action.BLOCK, Action.BLOCK]
    assert [(value.reason, value.status) for value in VALUES] == [("", 0), ("", 0), ("no", 403), ("later", 503)]


@pytest.mark.parametrize("value", VALUES)
def test_they_compare_and_copy_by_value(value: ConnectDecision) -> None:
    assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    assert hash(copy.copy(value)) == hash(value)
    assert [other for other in VALUES if other == value] == [value]
    assert value != "x"


@pytest.mark.parametrize("name", ["reason", "other"])
def test_they_cannot_be_changed(name: str) -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(VALUES[2], name, "x")
    with pytest.raises(AttributeError, match="cannot be changed"):
        del VALUES[2].reason
    with pytest.raises(TypeError, match=r"ConnectDecision\.block"):
        ConnectDecision()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None,), TypeError, "reason: expected str, got NoneType"),
        ((b"no",), TypeError, "reason: expected str, got bytes"),
        (("no", "403"), TypeError, "status: expected a whole number"),
        (("no", True), TypeError, "status: expected a whole number"),
        (("no", 200), ValueError, "status: expected an error from 400 to 599, got 200"),
        (("no", 600), ValueError, "got 600"),
        ((), TypeError, "reason"),
    ],
)
def test_mistakes(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        ConnectDecision.block(*arguments)
    assert isinstance(raised.value, DecisionError)
