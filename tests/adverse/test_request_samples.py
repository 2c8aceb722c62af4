"""Every request of tests/corpus/http1 through a running proxy, in the three ways in which a request reaches it.

What the corpus refuses is answered as it says, and no byte of it reaches an upstream's socket; what it accepts reaches one exactly.
Whole, byte by byte, and in thirds. Left out are samples whose limits are below what the configuration allows (their rules are in
`test_exact_limits.py`), and, where a request says itself where it goes, accepted ones that go to another host than the origin.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from soth_mitm import MitmProxyBuilder
from soth_mitm._dataplane.http1.encoder import rewrite_request
from soth_mitm.errors import WireError
from support.certs import TestCA
from support.heads import parse_request
from support.judge import Judge
from support.running import Running, configure
from support.samples import Sample, read_samples
from support.tap import Journal, Tap
from support.wire_client import WireClient

pytestmark = [
    pytest.mark.shares_resources,
    pytest.mark.skipif(os.name != "posix", reason="one of the ways is a Unix socket"),
]

SAMPLES = [sample for sample in read_samples("http1") if "request" in sample.blocks]
WAYS = ["intercepted", "forwarded", "unix"]
ORIGIN_FORM = re.compile(rb"((?:\r\n)?[^ \r\n]+) (/[^ \r\n]*|\*) (HTTP/1\.[01])\r\n")
CUT = "the connection ended before the message did"
# the first byte on the proxy's port says what the client took it for
OTHERWORDS = {
    "request_line: bytes that are no HTTP at all": "this is an HTTP proxy and was spoken to in TLS; use an http:// proxy URL",
}


def can_be_configured(sample: Sample) -> bool:
    return not set(sample.blocks["request"].options) - {"eof"}


def addressed(data: bytes, way: str, authority: bytes) -> bytes:
    """Return the sample as a client of `way` says it to reach `authority`."""
    if way == "intercepted":
        return data
    data = data.replace(b"Host: a.example\r\n", b"Host: %b\r\n" % authority)
    data = re.sub(rb"\A([A-Z]+ http://)a\.example([/? ])", rb"\g<1>%b\g<2>" % authority, data)
    line = ORIGIN_FORM.match(data)
    if way == "unix" or line is None or (line[2] == b"*" and line[1] != b"OPTIONS"):
        return data
    path = b"" if line[2] == b"*" else line[2]
    return b"%b http://%b%b %b\r\n" % (line[1], authority, path, line[3]) + data[line.end() :]


def goes_to(data: bytes, authority: bytes) -> bool:
    """Tell whether an accepted request names `authority` itself, in the one form that a proxy takes."""
    try:
        parsed = parse_request(data)
    except WireError:
        # a target and a Host that agreed by more than their spelling, of which one was rewritten
        return False
    return parsed is not None and parsed[0].method != "CONNECT" and parsed[0].authority == authority.decode()


REFUSED = [sample for sample in SAMPLES if "refused" in sample.verdict and can_be_configured(sample)]
ACCEPTED = [
    pytest.param(sample, way, id=f"{way}-{sample.name}")
    for sample in SAMPLES
    for way in WAYS
    if sample.verdict.get("complete") == "yes"
    and can_be_configured(sample)
    and (
        "CONNECT" not in sample.verdict.get("method", sample.name)
        if way == "intercepted"
        else goes_to(addressed(sample.blocks["request"].data, way, b"there"), b"there")
    )
]
UNFINISHED = [sample for sample in SAMPLES if sample.verdict.get("complete") == "no"]


def whole(data: bytes) -> list[bytes]:
    return [data]


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def thirds(data: bytes) -> list[bytes]:
    third = -(-len(data) // 3)
    return [data[at : at + third] for at in range(0, len(data), third)]


FEEDS = [whole, single_bytes, thirds]
Feed = Callable[[bytes], list[bytes]]


@dataclass
class Scene:
    """A proxy with a Unix socket, a TLS origin that it intercepts, and a plain one that it forwards to."""

    running: Running
    socket_path: Path
    secure: Tap
    plain: Tap
    journal: Journal

    def client(self, way: str) -> WireClient:
        if way == "intercepted":
            return self.running.secured(self.secure.port)
        return self.running.client() if way == "forwarded" else WireClient.to_unix(self.socket_path)

    def authority(self, way: str) -> bytes:
        return b"localhost:%d" % (self.secure if way == "intercepted" else self.plain).port

    def mark(self) -> int:
        """Return where the journal stands when everything that was under way is in it."""
        self._settle()
        self.secure.settle()
        self.plain.settle()
        return self.journal.mark()

    def _settle(self) -> None:
        for _ in range(2):
            # a turn of the proxy's loop: what it had written or closed before is in the origins' sockets after it
            self.running.metrics()

    def assert_silence(self, mark: int) -> None:
        """Assert that no origin has seen a byte since `mark`."""
        self._settle()
        self.secure.assert_silence(mark)
        self.plain.assert_silence(mark)


def scene_of(folder: Path, origin_ca: TestCA, journal: Journal, **keys: object) -> Iterator[Scene]:
    path = folder / "proxy.sock"
    with Tap(journal, origin_ca.server_context("localhost")) as secure, Tap(journal) as plain:
        config = configure(folder, origin_ca, unix_socket_path=str(path), **keys)
        judge = Judge(journal)
        running = Running(MitmProxyBuilder(config, judge).build().start_in_thread(), judge)
        scene = Scene(running, path, secure, plain, journal)
        for way in WAYS:
            authority = scene.authority(way).decode()
            with scene.client(way) as client:
                assert client.request(f"http://{authority}/" if way == "forwarded" else "/", authority).status == 200
        yield scene
        running.handle.shutdown(10)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, origin_ca: TestCA) -> Iterator[Scene]:
    """Requests are collected before they are decided on."""
    yield from scene_of(tmp_path_factory.mktemp("scene"), origin_ca, Journal())


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory, origin_ca: TestCA) -> Iterator[Scene]:
    """Requests are decided on at their heads."""
    yield from scene_of(tmp_path_factory.mktemp("scene"), origin_ca, Journal(), **{"body.buffer_request_bodies": False})


def refusal(sample: Sample) -> tuple[int, str]:
    status, _, reason = sample.verdict["refused"].partition(" ")
    return int(status), reason


def read_refusal(client: WireClient, sample: Sample) -> None:
    """Read what the sample says, and the orderly end of the connection."""
    status, reason = refusal(sample)
    if reason == CUT:
        if not isinstance(client.socket, ssl.SSLSocket):
            client.end_writing()
            with contextlib.suppress(ConnectionResetError):
                assert client.read_to_end() == b""
        return
    answer = client.read_answer()
    assert (answer.status, answer.get("connection")) == (status, "close")
    if sample.name in OTHERWORDS and not isinstance(client.socket, ssl.SSLSocket):
        reason = OTHERWORDS[sample.name]
    assert (answer.text, answer.get("content-length")) == (f"{reason}\n", str(len(reason) + 1))
    assert client.read_to_end() == b""


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sample", REFUSED, ids=lambda sample: sample.name)
def test_refused(scene: Scene, sample: Sample, way: str, feed: Feed) -> None:
    mark, before = scene.mark(), scene.running.metrics()
    with scene.client(way) as client:
        for piece in feed(addressed(sample.blocks["request"].data, way, scene.authority(way))):
            client.send(piece)
        read_refusal(client, sample)
    scene.assert_silence(mark)
    assert scene.journal.since(mark, "asked") == []
    after = scene.running.metrics()
    assert after.refused_request_count - before.refused_request_count == (refusal(sample)[1] != CUT)
    assert after.allowed_request_count == before.allowed_request_count


# Well-formed, but no policy can tell which host is named (interception.check_names)
NO_NAMES = ("target: the host in percent triplets",)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize(("sample", "way"), ACCEPTED)
def test_accepted(scene: Scene, sample: Sample, way: str, feed: Feed) -> None:
    data = addressed(sample.blocks["request"].data, way, scene.authority(way))
    left = len(sample.verdict.get("left", "").encode().decode("unicode_escape"))
    data = data[: len(data) - left]
    mark = scene.mark()
    with scene.client(way) as client:
        for piece in feed(data):
            client.send(piece)
        answer = client.read_answer(sample.verdict.get("method", "GET"))
    if way == "intercepted" and sample.name in NO_NAMES:
        assert answer.status == 421
        scene.assert_silence(mark)
        return
    assert answer.status == 200
    scene.journal.wait_plain(mark, expected_upstream(data, sample, way, scene.authority(way)))


def expected_upstream(data: bytes, sample: Sample, way: str, authority: bytes) -> bytes:
    parsed = parse_request(data)
    assert parsed is not None
    head, used = parsed
    sent_on, body_sent_on = sample.verdict.get("sent on"), sample.verdict.get("body sent on")
    if way == "intercepted" and sent_on:
        expected = head.raw if sent_on == "as it came" else unescaped(sent_on)
    else:
        expected = rewrite_request(head, False, authority.decode())
    return expected + (data[used:] if body_sent_on is None else unescaped(body_sent_on))


def unescaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sample", UNFINISHED, ids=lambda sample: sample.name)
def test_unfinished(scene: Scene, sample: Sample, way: str) -> None:
    """A client that leaves in the middle of a message has sent nothing."""
    mark = scene.mark()
    with scene.client(way) as client:
        client.send(addressed(sample.blocks["request"].data, way, scene.authority(way)))
    scene.running.wait_idle()
    scene.assert_silence(mark)


def breaks_in_its_body(sample: Sample) -> bool:
    try:
        return parse_request(sample.blocks["request"].data) is not None
    except WireError:
        return False


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("sample", [sample for sample in REFUSED if breaks_in_its_body(sample)], ids=lambda sample: sample.name)
def test_refused_while_it_streams(streaming: Scene, sample: Sample, feed: Feed) -> None:
    """What comes before the fault may have gone on; nothing of the fault has, and the upstream never sees an end."""
    data = sample.blocks["request"].data
    mark = streaming.mark()
    with streaming.client("intercepted") as client:
        for piece in feed(data):
            client.send(piece)
        read_refusal(client, sample)
    streaming.running.wait_idle()
    streaming.secure.settle()
    seen = streaming.journal.plain_since(mark)
    assert data.startswith(seen) and (seen != data or refusal(sample)[1] == CUT)
    assert streaming.journal.since(mark, "answered") == []
