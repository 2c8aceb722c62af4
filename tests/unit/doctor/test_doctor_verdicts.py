"""The doctor's judgement, its server's answers, and how it runs what it tries."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from soth_mitm.doctor.children import Ended, run_child
from soth_mitm.doctor.examination import Seen, judge
from soth_mitm.doctor.origin import GREETING, answer_for
from soth_mitm.doctor.programs import PROGRAMS, Program, Trial
from soth_mitm.errors import TlsFailedError

PROGRAM = Program(
    "x", "x", "x", ("--version",), lambda trial: (trial.origin,), if_it_ignores_the_proxy="set the proxy", if_it_distrusts="set the CA"
)
DISTRUST = TlsFailedError("no", side="client", reason="unknown_ca", detail="TLSV1_ALERT_UNKNOWN_CA")
UPSTREAM = TlsFailedError("no", side="upstream", reason="cert_validation", detail="expired")


@pytest.mark.parametrize(
    ("seen", "ended", "state", "reason", "remedy"),
    [
        (Seen(True, 1), Ended(0, "fine", ""), "green", "", ""),
        (Seen(True, 2), Ended(0, "", "a warning"), "green", "", ""),
        (Seen(True, 1), Ended(3, "", "cannot write"), "red", "its request came through, but then: cannot write", "not about trust"),
        (Seen(True, 1), Ended(None, "", ""), "red", "its request came through, but then: no end within 7 s", "not about trust"),
        (
            Seen(True, 0, DISTRUST),
            Ended(60, "", "curl: (60) SSL certificate problem"),
            "red",
            "it refused the certificate (unknown_ca: TLSV1_ALERT_UNKNOWN_CA): curl: (60) SSL certificate problem",
            "set the CA",
        ),
        (
            Seen(True, 0, UPSTREAM),
            Ended(1, "", ""),
            "red",
            "the proxy did not reach the doctor's own server: expired",
            "a bug of soth-mitm",
        ),
        (Seen(True), Ended(5, "", "no issuer"), "red", "it reached the proxy but sent no request: no issuer", "set the CA"),
        (
            Seen(),
            Ended(6, "", "no such host"),
            "red",
            "it never reached the proxy: no such host",
            "not about trust; if that helps nothing, set the proxy",
        ),
        (Seen(), Ended(0, "", ""), "red", "it ended well without asking the proxy for anything", "set the proxy"),
        (Seen(), Ended(None, "", ""), "red", "it never reached the proxy: no end within 7 s", "set the proxy"),
    ],
)
def test_verdicts(seen: Seen, ended: Ended, state: str, reason: str, remedy: str) -> None:
    said, why, what = judge(PROGRAM, seen, ended, 7)
    assert (said, why) == (state, reason)
    assert remedy in what and bool(what) == bool(remedy)


@pytest.mark.parametrize(
    ("stdout", "stderr", "words"),
    [
        ("", "", "exit status 1, and no word"),
        ("out", "", "out"),
        ("out", "first\nlast\n\n", "last"),
        ("", "npm error code SELF_SIGNED\nnpm notice goodbye\n", "npm error code SELF_SIGNED"),
        ("", "x" * 1000, "x" * 300),
    ],
)
def test_last_words_are_those_that_say_most(stdout: str, stderr: str, words: str) -> None:
    assert Ended(1, stdout, stderr).last_words == words


def test_programs_are_told_apart() -> None:
    assert len({program.slug for program in PROGRAMS}) == len({program.name for program in PROGRAMS}) == len(PROGRAMS)
    trial = Trial("x", 443, "127.0.0.1:1", Path("/d"))
    assert trial.host == "x.doctor.soth-mitm.test"
    for program in PROGRAMS:
        own = Trial(program.slug, 8443, "127.0.0.1:1", Path("/d"))
        assert own.host in " ".join(program.arguments(own)), program.name
        assert bool(program.requires) == bool(program.missing)


@pytest.mark.parametrize(
    ("path", "host", "kind", "part"),
    [
        ("/", "x.test:1", b"text/plain", GREETING),
        ("/repository.git/info/refs", "x.test:1", b"text/plain", b"refs/heads/main"),
        ("/repository.git/HEAD", "x.test:1", b"text/plain", b"ref: "),
        ("/-/ping", "x.test:1", b"application/json", b"{}"),
        ("/index/config.json", "x.test:1", b"application/json", b'"api": "https://x.test:1"'),
        ("/api/v1/crates", "x.test:1", b"application/json", b'"total":0'),
        ("/", "aws.test:1", b"application/xml", b"ListAllMyBucketsResult"),
    ],
)
def test_answers(path: str, host: str, kind: bytes, part: bytes) -> None:
    assert answer_for(path, host)[0] == kind and part in answer_for(path, host)[1]


def test_the_wheel_is_one() -> None:
    names = zipfile.ZipFile(io.BytesIO(answer_for("/x.whl", "")[1])).namelist()
    assert [name.rpartition("/")[2] for name in names] == ["METADATA", "WHEEL", "RECORD"]


@pytest.mark.anyio
async def test_a_child_is_given_what_it_is_given(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['A'], os.getcwd(), sys.stdin.read()); print('e', file=sys.stderr); sys.exit(4)"
    ended = await run_child((sys.executable, "-c", code), environ={**os.environ, "A": "1"}, directory=tmp_path, seconds=30, stdin="in")
    assert (ended.status, ended.stdout.split(), ended.stderr.strip()) == (4, ["1", str(tmp_path), "in"], "e")


@pytest.mark.anyio
async def test_a_child_that_reads_nothing_is_no_trouble(tmp_path: Path) -> None:
    ended = await run_child((sys.executable, "-c", ""), environ=os.environ, directory=tmp_path, seconds=30, stdin="x" * 1_000_000)
    assert ended.status == 0


@pytest.mark.anyio
async def test_a_child_that_does_not_end_is_cut_with_its_children(tmp_path: Path) -> None:
    sleeps = "import threading; threading.Event().wait()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeps!r}])"
    ended = await run_child((sys.executable, "-c", code), environ=os.environ, directory=tmp_path, seconds=1)
    # that this returned at all says that nobody holds the pipes any more
    assert ended.status is None


@pytest.mark.anyio
async def test_a_child_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await run_child((str(tmp_path / "none"),), environ=os.environ, directory=tmp_path, seconds=5)
