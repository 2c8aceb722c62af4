"""Frames of HTTP/2 without state: lengths, streams, padding, names of codes (RFC 9113 sections 4.1, 6 and 7)."""

import json
from typing import Any

import pytest

from soth_mitm._dataplane.http2.frame import ERROR_CODE_NAMES, FRAME_NAMES, inspect_frame, make_frame, name_error_code
from support.sessions import Peer
from support.source import ROOT

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
UNKNOWN = 0xBE
ACK, PADDED, PRIORITY_FLAG = 0x1, 0x8, 0x20


def fault(frame: bytes) -> str:
    """Return the name of the code of what is wrong with a frame, "" when nothing is."""
    try:
        inspect_frame(frame)
    except ValueError as error:
        code: str = error.args[0]
        return code
    return ""


# what each type may be: stream 0, a stream, and lengths that are right and wrong
RULES: dict[int, tuple[bool, bool, tuple[int, ...], tuple[int, ...]]] = {
    DATA: (False, True, (0, 1, 16384), (16385,)),
    HEADERS: (False, True, (0, 1, 16384), (16385,)),
    PRIORITY: (False, True, (5,), (0, 4, 6)),
    RST_STREAM: (False, True, (4,), (0, 3, 5)),
    SETTINGS: (True, False, (0, 6, 12, 16380), (1, 5, 7, 16384)),
    PUSH_PROMISE: (False, True, (4, 16384), (0, 3, 16385)),
    PING: (True, False, (8,), (0, 7, 9)),
    GOAWAY: (True, False, (8, 9, 16384), (0, 7, 16385)),
    WINDOW_UPDATE: (True, True, (4,), (0, 3, 5)),
    CONTINUATION: (False, True, (0, 1, 16384), (16385,)),
    PRIORITY_UPDATE: (True, False, (4, 16384), (0, 3, 16385)),
    UNKNOWN: (True, True, (0, 1, 16384), (16385,)),
}


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: FRAME_NAMES.get(kind, "unknown"))
def test_rules_of_each_type(kind: int) -> None:
    on_connection, on_stream, right, wrong = RULES[kind]
    stream = 1 if on_stream else 0
    for length in right:
        assert fault(make_frame(kind, 0, 0, bytes(length))) == ("" if on_connection else "PROTOCOL_ERROR")
        assert fault(make_frame(kind, 0, 1, bytes(length))) == ("" if on_stream else "PROTOCOL_ERROR")
    for length in wrong:
        assert fault(make_frame(kind, 0, stream, bytes(length))) == "FRAME_SIZE_ERROR"


def test_an_acknowledgement_of_settings_is_empty() -> None:
    assert fault(make_frame(SETTINGS, ACK, 0)) == ""
    assert fault(make_frame(SETTINGS, ACK, 0, bytes(6))) == "FRAME_SIZE_ERROR"


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "content"),
    [
        (DATA, 0, b"abc", b"abc"),
        (DATA, PADDED, b"\x00abc", b"abc"),
        (DATA, PADDED, b"\x02abc\0\0", b"abc"),
        (DATA, PADDED, b"\x05abc\0\0", b""),
        (DATA, PADDED, b"\xff" + bytes(255), b""),
        (DATA, PADDED, b"\xff" + bytes(256), b"\0"),
        (HEADERS, PRIORITY_FLAG, b"\0\0\0\0\x10abc", b"abc"),
        (HEADERS, PADDED | PRIORITY_FLAG, b"\x01\0\0\0\0\x10abc\0", b"abc"),
        (HEADERS, PRIORITY_FLAG, b"\0\0\0\0\x10", b""),
        # the flag means nothing to DATA
        (DATA, PRIORITY_FLAG, b"abc", b"abc"),
        (PUSH_PROMISE, 0, b"\0\0\0\x02abc", b"abc"),
        (PUSH_PROMISE, PADDED, b"\x01\0\0\0\x02abc\0", b"abc"),
        (CONTINUATION, PADDED, b"\x02abc", b"\x02abc"),
    ],
)
def test_content(kind: int, flags: int, payload: bytes, content: bytes) -> None:
    frame = make_frame(kind, flags, 1, payload)
    assert inspect_frame(frame + b"more") == (len(payload), kind, flags, 1, content)
    for end in range(9, len(frame)):
        assert inspect_frame(frame[:end]) == (len(payload), kind, flags, 1, None)
    for end in range(9):
        with pytest.raises(ValueError, match="nine octets"):
            inspect_frame(frame[:end])


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "code"),
    [
        (DATA, PADDED, b"", "FRAME_SIZE_ERROR"),
        (DATA, PADDED, b"\x01", "PROTOCOL_ERROR"),
        (DATA, PADDED, b"\x04abc", "PROTOCOL_ERROR"),
        (DATA, PADDED, b"\xff" + bytes(254), "PROTOCOL_ERROR"),
        (HEADERS, PRIORITY_FLAG, b"\0\0\0\0", "FRAME_SIZE_ERROR"),
        (HEADERS, PADDED | PRIORITY_FLAG, b"\0\0\0\0\0", "FRAME_SIZE_ERROR"),
        (HEADERS, PADDED | PRIORITY_FLAG, b"\x01\0\0\0\0\0", "PROTOCOL_ERROR"),
        (PUSH_PROMISE, PADDED, b"\0\0\0\0", "FRAME_SIZE_ERROR"),
    ],
)
def test_flags_that_promise_too_much(kind: int, flags: int, payload: bytes, code: str) -> None:
    assert fault(make_frame(kind, flags, 1, payload)) == code


def test_the_reserved_bit_is_ignored() -> None:
    frame = bytearray(make_frame(DATA, 0, 2**31 - 1, b"x"))
    frame[5] |= 0x80
    assert inspect_frame(bytes(frame)) == (1, DATA, 0, 2**31 - 1, b"x")


def test_a_fault_names_the_frame() -> None:
    with pytest.raises(ValueError, match=r"\(PING, 7 octets, stream 0\) has a length"):
        inspect_frame(make_frame(PING, 0, 0, bytes(7)))
    with pytest.raises(ValueError, match=r"\(type 0xbe, 16385 octets, stream 3\) is longer"):
        inspect_frame(make_frame(UNKNOWN, 0, 3, bytes(16385)))


def test_names_of_codes() -> None:
    assert [name_error_code(code) for code in range(14)] == list(ERROR_CODE_NAMES)
    assert name_error_code(13) == "HTTP_1_1_REQUIRED"
    assert name_error_code(14) == "0xe"
    assert name_error_code(2**32 - 1) == "0xffffffff"


SAMPLES: list[dict[str, Any]] = json.loads((ROOT / "tests/corpus/h2_frames/frames.json").read_text(encoding="utf-8"))
CONTENTS = ("data", "header_block_fragment")


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if sample["error"] is None], ids=lambda sample: str(sample["name"]))
def test_samples_of_others(sample: dict[str, Any]) -> None:
    wire, frame = bytes.fromhex(sample["wire"]), sample["frame"]
    length, kind, flags, stream, content = inspect_frame(wire)
    assert (length, kind, flags, stream) == (frame["length"], frame["type"], frame["flags"], frame["stream_identifier"])
    for name in CONTENTS:
        if name in frame["frame_payload"]:
            assert content == frame["frame_payload"][name].encode()


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if sample["error"]], ids=lambda sample: str(sample["name"]))
def test_malformed_samples_of_others(sample: dict[str, Any]) -> None:
    wire = bytes.fromhex(sample["wire"])
    # what the frame alone does not say, a connection does
    code = fault(wire)
    if not code:
        peer = Peer()
        peer.feed(wire)
        code = peer.failure
    assert ERROR_CODE_NAMES.index(code) in sample["error"]
