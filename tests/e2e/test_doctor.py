"""The doctor on this machine: each program that is here, for real, and programs that fail in each way there is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from soth_mitm import generate_ca, write_trust_files
from soth_mitm.cli.commands import cli
from soth_mitm.doctor.examination import Examination, Verdict
from soth_mitm.doctor.programs import PROGRAMS, Program
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.tls.ca_files import save_ca

BY_SLUG = {program.slug: program for program in PROGRAMS}
FETCH = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=20).read(); "


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Return the environment without a user's own settings of proxies and Java, in a state directory of its own."""
    for name in ("NO_PROXY", "JAVA_TOOL_OPTIONS", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    return dict(os.environ)


def examine(
    directory: Path, environ: dict[str, str], programs: Sequence[Program], *, python: str | None = None, seconds: float = 60
) -> list[Verdict]:
    ca = generate_ca()
    save_ca(ca, directory / "with a space" / "ca.pem", directory / "with a space" / "ca-key.pem")
    files = write_trust_files(ca, directory / "with a space" / "ca.pem")
    begun: list[str] = []
    told: list[Verdict] = []
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        examination = Examination(ca, files, environ, sys.platform, seconds, python=python)
        verdicts = runner.run(examination.run(programs, lambda program: begun.append(program.name), told.append))
    assert told == verdicts
    assert begun == [verdict.program for verdict in verdicts]
    return verdicts


@pytest.mark.parametrize("slug", ["curl", "openssl", "npm", "git", "go", "java", "cargo", "aws", "deno"])
def test_program(slug: str, tmp_path: Path, surroundings: dict[str, str]) -> None:
    if shutil.which(BY_SLUG[slug].executable) is None:
        pytest.skip(f"{slug} is not installed")
    (verdict,) = examine(tmp_path, surroundings, [BY_SLUG[slug]])
    if verdict.state == "absent":
        pytest.skip(verdict.reason)
    assert (verdict.state, verdict.reason) == ("green", "")
    assert re.fullmatch(r"\d+(\.\d+)+", verdict.version)
    if slug in ("curl", "go", "java", "deno"):
        assert verdict.protocol == "HTTP/2"
    if slug in ("openssl", "npm"):
        assert verdict.protocol == "HTTP/1.1"


def test_python(tmp_path: Path, surroundings: dict[str, str]) -> None:
    programs = [BY_SLUG[slug] for slug in ("urllib", "requests", "httpx", "aiohttp", "pip")]
    verdicts = examine(tmp_path, surroundings, programs, python=sys.executable)
    assert [(verdict.program, verdict.state, verdict.reason) for verdict in verdicts if verdict.state != "absent"] == [
        (program.name, "green", "") for program, verdict in zip(programs, verdicts, strict=True) if verdict.state != "absent"
    ]
    assert [verdict.state for verdict in verdicts[:4]] == ["green"] * 4


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_node(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (verdict,) = examine(tmp_path, surroundings, [BY_SLUG["node"]])
    version = tuple(int(part) for part in verdict.version.split("."))
    if version >= (24, 0) or (22, 21) <= version < (23, 0):
        assert (verdict.state, verdict.reason) == ("green", "")
    else:
        assert verdict.state == "red"
        assert "it never reached the proxy: " in verdict.reason and "ENOTFOUND" in verdict.reason
        assert verdict.reason.endswith("sent through the proxy by hand it trusts the CA")
        assert "proxy agent" in verdict.remedy


@pytest.mark.skipif(shutil.which("wget") is None, reason="wget is not installed")
def test_wget(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (verdict,) = examine(tmp_path, surroundings, [BY_SLUG["wget"]])
    if verdict.state == "red":  # built on GnuTLS, which asks the system only
        assert "issuer" in verdict.reason and "soth-mitm ca install" in verdict.remedy


def script(slug: str, code: str, **changes: object) -> Program:
    program = Program(slug, slug, sys.executable, ("--version",), lambda trial: ("-c", code, f"{trial.origin}/"))
    return replace(program, **changes)  # type: ignore[arg-type]


def test_every_way_to_fail(tmp_path: Path, surroundings: dict[str, str]) -> None:
    no_proxy = FETCH.replace("; u.", "; u.install_opener(u.build_opener(u.ProxyHandler({}))); u.")
    no_trust = FETCH.replace("; u.", "; import ssl; nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); u.").replace(
        "timeout=20", "timeout=20, context=nobody"
    )
    programs = [
        script("good", FETCH),
        script("past-the-proxy", no_proxy),
        script("past-the-proxy-quietly", "pass"),
        script("distrusts", no_trust),
        script("fails-later", FETCH + "sys.exit('the disk is full')"),
        script(
            "connects-only",
            "import os, socket, urllib.parse as p; where = p.urlsplit(os.environ['HTTPS_PROXY']); "
            "s = socket.create_connection((where.hostname, where.port)); "
            "s.sendall(b'CONNECT connects-only.doctor.soth-mitm.test:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); s.recv(100)",
        ),
        script("cannot-be-built", FETCH, build=("-c", "import sys; sys.exit('error: no linker')"), built="x"),
        script("lacks-a-part", FETCH, requires=("-c", "import no_such_package"), missing="the package no_such_package"),
        script("elsewhere", FETCH, executable="no-such-program"),
        script("does-not-run", FETCH, version=("-c", "import sys; sys.exit('error: no toolchain is configured')")),
    ]
    verdicts = {verdict.program: verdict for verdict in examine(tmp_path, surroundings, programs)}
    assert {name: verdict.state for name, verdict in verdicts.items() if verdict.state != "red"} == {
        "good": "green",
        "lacks-a-part": "absent",
        "elsewhere": "absent",
    }
    reasons = {name: verdict.reason for name, verdict in verdicts.items()}
    assert re.match("it never reached the proxy: .*(Name or service not known|nodename|getaddrinfo|resolution)", reasons["past-the-proxy"])
    assert reasons["past-the-proxy-quietly"] == "it ended well without asking the proxy for anything"
    assert re.match("it refused the certificate \\(unknown_ca: .*CERTIFICATE_VERIFY_FAILED", reasons["distrusts"])
    assert reasons["fails-later"] == "its request came through, but then: the disk is full"
    assert reasons["connects-only"].startswith("it reached the proxy but sent no request: ")
    assert reasons["cannot-be-built"] == "its test program cannot be built: error: no linker"
    assert "has not the package no_such_package" in reasons["lacks-a-part"]
    assert reasons["elsewhere"] == "`no-such-program` is not on the path"
    # as rustup's cargo without a toolchain: neither the proxy nor its settings have a part in that
    assert re.fullmatch("`.* -c .*` fails: error: no toolchain is configured", reasons["does-not-run"])
    assert verdicts["does-not-run"].remedy == "repair its installation"
    assert all(verdict.remedy for verdict in verdicts.values() if verdict.state == "red")


def test_a_program_that_does_not_end(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (verdict,) = examine(tmp_path, surroundings, [script("hangs", "import threading; threading.Event().wait()")], seconds=1)
    assert (verdict.state, verdict.reason) == ("red", "it never reached the proxy: no end within 1 s")


def test_a_users_no_proxy_is_found_out(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (verdict,) = examine(tmp_path, surroundings | {"NO_PROXY": "soth-mitm.test"}, [script("good", FETCH)])
    assert verdict.state == "red" and verdict.reason.startswith("it never reached the proxy")


def test_the_command_prints_and_counts(surroundings: dict[str, str], tmp_path: Path) -> None:
    runner = CliRunner()
    good = runner.invoke(cli, ("doctor", "--python", sys.executable, "--only", "urllib", "--only", "httpx"))
    assert good.exit_code == 0, good.output
    assert [line.split()[0] for line in good.stdout.splitlines()] == ["green", "green", "2"]
    assert good.stdout.splitlines()[-1] == "2 green, 0 red, 0 not here"
    past = {"NO_PROXY": "soth-mitm.test"}
    red = runner.invoke(cli, ("doctor", "--python", sys.executable, "--only", "urllib", "--json"), env=past)
    assert red.exit_code == 23
    document = json.loads(red.stdout)
    assert document["counts"] == {"green": 0, "red": 1, "absent": 0}
    assert document["programs"][0]["reason"].startswith("it never reached the proxy")
    red = runner.invoke(cli, ("doctor", "--python", sys.executable, "--only", "urllib"), env=past)
    assert red.exit_code == 23 and "why   it never reached the proxy" in red.stdout and "next  " in red.stdout
    absent = runner.invoke(cli, ("doctor", "--python", str(tmp_path / "none"), "--only", "urllib"))
    assert (absent.exit_code, "0 green, 0 red, 1 not here" in absent.stdout) == (0, True)
