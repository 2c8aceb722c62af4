"""SETTINGS of HTTP/2: each value just right and just wrong, and what of them is written (RFC 9113 section 6.5)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http2.settings import apply_settings, make_settings

TABLE_SIZE, PUSH, MAX_STREAMS, WINDOW, FRAME_SIZE, LIST_SIZE, CONNECT, PRIORITIES = 1, 2, 3, 4, 5, 6, 8, 9
DEFAULTS = apply_settings()


def entries(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">HI", *pair) for pair in pairs)


def fault(*pairs: tuple[int, int], from_server: bool = False) -> str:
    """Return the code's name, "" when all is well."""
    try:
        apply_settings(entries(*pairs), from_server=from_server)
    except ValueError as error:
        code: str = error.args[0]
        return code
    return ""


def test_defaults() -> None:
    assert DEFAULTS == {
        "table_size": 4096,
        "table_least": 4096,
        "max_streams": 2**32 - 1,
        "window": 65535,
        "frame_size": 16384,
        "list_size": 2**32 - 1,
        "push": True,
        "connect_protocol": False,
        "no_priorities": False,
    }


# rule 63
@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (PUSH, 0, ""),
        (PUSH, 1, ""),
        (PUSH, 2, "PROTOCOL_ERROR"),
        (WINDOW, 0, ""),
        (WINDOW, 2**31 - 1, ""),
        (WINDOW, 2**31, "FLOW_CONTROL_ERROR"),
        (FRAME_SIZE, 2**14 - 1, "PROTOCOL_ERROR"),
        (FRAME_SIZE, 2**14, ""),
        (FRAME_SIZE, 2**24 - 1, ""),
        (FRAME_SIZE, 2**24, "PROTOCOL_ERROR"),
        (CONNECT, 1, ""),
        (CONNECT, 2, "PROTOCOL_ERROR"),
        (PRIORITIES, 1, ""),
        (PRIORITIES, 2, "PROTOCOL_ERROR"),
        (TABLE_SIZE, 2**32 - 1, ""),
        (MAX_STREAMS, 0, ""),
        (LIST_SIZE, 0, ""),
        (7, 2**32 - 1, ""),
        (0xFFFF, 2**32 - 1, ""),
        (0, 5, ""),
    ],
)
def test_rule_63_values(name: int, value: int, code: str) -> None:
    assert fault((name, value)) == code
    assert fault((MAX_STREAMS, 1), (name, value), (MAX_STREAMS, 2)) == code


def test_a_server_does_not_announce_push() -> None:
    assert fault((PUSH, 0), from_server=True) == ""
    assert fault((PUSH, 1), from_server=True) == "PROTOCOL_ERROR"


def test_extended_connect_is_not_withdrawn() -> None:
    assert fault((CONNECT, 0), (CONNECT, 1)) == ""
    assert fault((CONNECT, 1), (CONNECT, 0)) == "PROTOCOL_ERROR"
    with pytest.raises(ValueError, match="CONNECT_PROTOCOL"):
        apply_settings(entries((CONNECT, 1)), entries((CONNECT, 0)))


def test_number_of_entries() -> None:
    assert fault(*[(MAX_STREAMS, 1)] * 32) == ""
    assert fault(*[(MAX_STREAMS, 1)] * 33) == "ENHANCE_YOUR_CALM"


def test_rule_59_the_smallest_table_of_a_frame_is_known() -> None:
    values = apply_settings(entries((TABLE_SIZE, 100), (TABLE_SIZE, 5000), (TABLE_SIZE, 200)))
    assert (values["table_size"], values["table_least"]) == (200, 100)
    values = apply_settings(entries((TABLE_SIZE, 100)), entries((TABLE_SIZE, 300)))
    assert (values["table_size"], values["table_least"]) == (300, 100)
    values = apply_settings(entries((TABLE_SIZE, 100)), entries((TABLE_SIZE, 300)), entries((TABLE_SIZE, 400)))
    assert (values["table_size"], values["table_least"]) == (400, 300)


def test_the_last_value_holds() -> None:
    assert apply_settings(entries((WINDOW, 5), (WINDOW, 7)), entries((LIST_SIZE, 9))) == {**DEFAULTS, "window": 7, "list_size": 9}


def test_what_is_written() -> None:
    assert make_settings({}) == b""
    assert make_settings({"push": False, "max_streams": 100}) == entries((PUSH, 0), (MAX_STREAMS, 100))
    # a server's push is no setting
    assert make_settings({"push": False, "max_streams": 100}, True) == entries((MAX_STREAMS, 100))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "table_size": st.integers(0, 2**32 - 1),
            "max_streams": st.integers(0, 2**32 - 1),
            "window": st.integers(0, 2**31 - 1),
            "frame_size": st.integers(2**14, 2**24 - 1),
            "list_size": st.integers(0, 2**32 - 1),
            "push": st.booleans(),
            "connect_protocol": st.booleans(),
            "no_priorities": st.booleans(),
        },
    )
)
def test_what_is_written_is_read(values: dict[str, int]) -> None:
    read = apply_settings(make_settings(values))
    assert read == {**DEFAULTS, **values, "table_least": min(4096, values.get("table_size", 4096))}
