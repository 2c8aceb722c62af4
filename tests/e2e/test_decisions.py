"""Every decision about every upload, in both modes: what the upstream saw of it, and when.

The upstream is an HTTPS origin that journals each byte as it comes, beside what the handler was asked. The client is a TLS client of the
standard library inside a CONNECT. Each case is one upload on a connection of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from soth_mitm import MitmProxyBuilder, RawRequest
from support.certs import TestCA
from support.judge import Judge, Upload
from support.running import Running, configure
from support.tap import Entry, Journal, Tap

pytestmark = pytest.mark.shares_resources

LIMIT = 1000
SIZES = {"none": 0, "small": 10, "exactly": LIMIT, "over": 2500}


@dataclass
class Court:
    """A proxy under one configuration, its handler and its origin."""

    running: Running
    judge: Judge
    tap: Tap
    enforce: bool
    buffered: bool
    rejects: bool
    fails_closed: bool

    def refuses(self, upload: Upload) -> bool:
        """Whether `upload` is too long to be decided on."""
        return self.enforce and self.buffered and self.rejects and upload.size > LIMIT

    def status(self, upload: Upload) -> int:
        """What the client is to be answered."""
        if self.refuses(upload):
            return 413
        if not self.enforce:
            return 200
        if upload.decide in ("raise", "hang"):
            return 502 if self.fails_closed else 200
        return 418 if upload.decide.endswith("block") else 200

    def assert_nothing_left(self, mark: int) -> None:
        """Assert that the proxy has written nothing to the origin since `mark`."""
        for _ in range(2):
            # a turn of the proxy's loop: what it had written before is in the origin's socket after it
            self.running.metrics()
        self.tap.assert_silence(mark)

    def check_asked(self, upload: Upload, asked: RawRequest) -> None:
        """Compare what the handler was shown."""
        assert (asked.method, asked.path, asked.headers.get("host")) == ("POST", f"/up?{upload.size}", "localhost")
        if not self.buffered:
            empty = upload.framing == "length" and upload.size == 0
            assert (asked.raw_body, asked.body_complete, asked.body_truncated) == (b"", empty, False)
            return
        assert asked.raw_body == upload.content[:LIMIT]
        assert (asked.body_complete, asked.body_truncated) == (upload.size <= LIMIT, upload.size > LIMIT)
        if upload.size <= LIMIT:
            assert asked.trailers.get_all("x-end") == (["yes", "twice"] if upload.framing == "trailers" else [])


@pytest.fixture(scope="module")
def journal() -> Journal:
    return Journal()


@pytest.fixture(scope="module")
def tap(journal: Journal, origin_ca: TestCA) -> Iterator[Tap]:
    with Tap(journal, origin_ca.server_context("localhost")) as running:
        yield running


@dataclass(frozen=True)
class Setting:
    """What a proxy is configured with."""

    mode: str
    buffering: str
    overflow: str
    policy: str
    hanging: bool

    def __str__(self) -> str:
        return f"{self.mode}-{self.buffering}-{self.overflow}-{self.policy}{'-hanging' * self.hanging}"


@pytest.fixture(scope="module")
def court(
    journal: Journal, tap: Tap, origin_ca: TestCA, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Court]:
    """A proxy that has an idle connection to the origin, so that nothing needs to be dialled for a case."""
    judge, setting = Judge(journal), request.param
    keys = {
        "intercept_mode": setting.mode,
        "body.max_size_bytes": LIMIT,
        "body.buffer_request_bodies": setting.buffering == "buffered",
        "body.overflow": setting.overflow,
        "handler.failure_policy": setting.policy,
        "handler.request_timeout_ms": 10 if setting.hanging else 15_000,
    }
    config = configure(tmp_path_factory.mktemp("court"), origin_ca, **keys)
    running = Running(MitmProxyBuilder(config, judge).build().start_in_thread(), judge)
    with running.secured(tap.port) as client:
        assert client.request("/", "localhost").status == 200
    yield Court(
        running,
        judge,
        tap,
        enforce=setting.mode == "enforce",
        buffered=setting.buffering == "buffered",
        rejects=setting.overflow == "reject",
        fails_closed=setting.policy == "block",
    )
    running.handle.shutdown(10)


def settings() -> list[tuple[Setting, str]]:
    """Every configuration with every decision; what failure_policy says matters to decisions that fail only."""
    found = []
    for mode, buffering, overflow, policy in product(
        ("enforce", "monitor"), ("buffered", "unbuffered"), ("stream", "reject"), ("allow", "block")
    ):
        quick = ["raise"] if policy == "block" else ["allow", "block", "suspend", "suspend-block", "raise"]
        found += [(Setting(mode, buffering, overflow, policy, False), decide) for decide in quick]
        found.append((Setting(mode, buffering, overflow, policy, True), "hang"))
    return found


UPLOADS = {f"{framing}-{name}": (size, framing) for framing in ("length", "chunked", "trailers") for name, size in SIZES.items()}


@pytest.mark.parametrize(("size", "framing"), UPLOADS.values(), ids=UPLOADS)
@pytest.mark.parametrize(("court", "decide"), settings(), indirect=["court"], ids=str, scope="module")
def test_decision(court: Court, journal: Journal, decide: str, size: int, framing: str) -> None:
    upload = Upload(size, framing, decide)
    before = court.running.metrics()
    with court.running.secured(court.tap.port) as client:
        mark = journal.mark()
        client.send(upload.wire)
        if not court.refuses(upload):
            (asked,) = journal.wait(mark, "asked")
            if court.enforce and decide.startswith("suspend"):
                court.assert_nothing_left(mark)
                court.judge.release()
            court.check_asked(upload, asked.value)
        answer = client.read_answer()
        assert answer.status == court.status(upload), answer.text
        if decide.startswith("suspend"):
            court.judge.release()
        if answer.status == 200:
            check_forwarded(court, journal, mark, upload)
        else:
            court.assert_nothing_left(mark)
    check_counts(court, upload, before.as_dict(), court.running.metrics().as_dict())


def check_forwarded(court: Court, journal: Journal, mark: int, upload: Upload) -> None:
    """The upstream saw the upload as the client sent it, after the decision, and the handler heard of both in order."""
    journal.wait_plain(mark, upload.wire)
    (shown,) = journal.wait(mark, "shown")
    asked, told = (entry.value for entry in journal.since(mark, "asked", "shown"))
    assert told is shown.value and told.request is asked
    if court.enforce:
        order: list[Entry] = journal.since(mark, "asked", "tcp", "plain")
        assert order[0].kind == "asked", order


def check_counts(court: Court, upload: Upload, before: dict[str, int | float], after: dict[str, int | float]) -> None:
    """What the decision is counted as."""
    grown = {name: after[name] - before[name] for name in after if name.endswith("_count") and after[name] != before[name]}
    refused = court.refuses(upload)
    fails = upload.decide in ("raise", "hang") and not refused
    assert grown.get("ignored_block_count", 0) == (not court.enforce and upload.decide.endswith("block"))
    assert grown.get("handler_panic_count", 0) == (fails and upload.decide == "raise")
    assert grown.get("handler_timeout_count", 0) == (fails and upload.decide == "hang")
    assert grown.get("blocked_request_count", 0) == (court.status(upload) in (418, 502))
    assert grown.get("allowed_request_count", 0) == (court.enforce and not refused and upload.decide in ("allow", "suspend"))
