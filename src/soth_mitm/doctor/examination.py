"""The examination: a proxy with the user's CA, a server behind it, each program in turn, and a verdict for each."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.addresses import format_host_port, parse_target
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ProcessInfo
from soth_mitm.decision import HandlerDecision
from soth_mitm.doctor.children import Ended, run_child
from soth_mitm.doctor.origin import DOMAIN, DoctorOrigin
from soth_mitm.doctor.programs import Program, Trial
from soth_mitm.errors import TlsFailedError
from soth_mitm.handler import InterceptHandler
from soth_mitm.proxy.proxy import MitmProxyBuilder
from soth_mitm.tls.bundle import TrustFiles
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.environment import client_environment

State = Literal["green", "red", "absent"]
VERSION_SECONDS = 30.0
BUILD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one program."""

    program: str
    state: State
    version: str = ""
    reason: str = ""
    """Why it is not green."""
    remedy: str = ""
    """What to do next."""
    seconds: float = 0.0
    protocol: str = ""
    """The protocol of its request, ``"HTTP/2"`` or ``"HTTP/1.1"``; empty when none came through."""


@dataclass(slots=True)
class Seen:
    """What the proxy saw of one host."""

    connected: bool = False
    requests: int = 0
    failure: TlsFailedError | None = None
    protocol: str = ""


class Witness(InterceptHandler):
    """The proxy's handler: it remembers, by host, how far each program came."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def of(self, host: str) -> Seen:
        """Return what was seen of `host`."""
        return self._seen.setdefault(host, Seen())

    def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        """Note that somebody asked for the host."""
        self.of(host).connected = True
        return True

    def on_tls_failure(self, host: str, error: TlsFailedError) -> None:
        """Note why the handshake failed."""
        self.of(host).failure = error

    def on_request(self, request: RawRequest) -> HandlerDecision:
        """Note that a request could be read."""
        seen = self.of(parse_target(_with_port(request.authority))[0])
        seen.requests += 1
        seen.protocol = request.http_version
        return HandlerDecision.ALLOW


@dataclass(slots=True)
class Examination:
    """Everything the programs are tried with."""

    ca: CertificateAuthority
    files: TrustFiles
    environ: Mapping[str, str]
    platform: str
    seconds: float = 30.0
    min_version: Literal["tls1.2", "tls1.3"] = "tls1.2"
    python: str | None = None
    """The interpreter to try instead of the first one on the path."""
    _witness: Witness = field(default_factory=Witness)

    async def run(self, programs: Sequence[Program], begins: Callable[[Program], None], tell: Callable[[Verdict], None]) -> list[Verdict]:
        """Try the programs one after the other; `begins` and `tell` are called before and after each.

        Raises what `MitmProxy.start` raises.
        """
        verdicts = []
        with tempfile.TemporaryDirectory(prefix="soth-mitm-doctor-") as scratch:
            async with DoctorOrigin() as origin:
                proxy = MitmProxyBuilder(self._config(origin, Path(scratch)), self._witness).with_ca(self.ca).build()
                async with proxy as handle:
                    where = format_host_port(handle.address, handle.port)
                    for program in programs:
                        begins(program)
                        verdicts.append(await self._examine(program, Trial(program.slug, origin.port, where, Path(scratch, program.slug))))
                        tell(verdicts[-1])
        return verdicts

    def _config(self, origin: DoctorOrigin, scratch: Path) -> MitmConfig:
        roots = scratch / "origin-root.pem"
        roots.write_bytes(origin.ca.cert_pem)
        config = MitmConfig(bind="127.0.0.1:0")
        config.interception.destinations = [f"*.{DOMAIN}:*"]
        # nothing of what a program may ask for besides our server leaves this machine
        config.interception.passthrough_unlisted = False
        config.upstream.ca_bundle_path = roots
        config.upstream.connect_to = [f"*.{DOMAIN}:*=127.0.0.1:{origin.port}"]
        config.tls.min_version = self.min_version
        config.timeouts.drain_ms = 1000
        return config

    async def _examine(self, program: Program, trial: Trial) -> Verdict:
        asked = self.python if self.python is not None and program.executable.startswith("python") else program.executable
        executable = _located(asked, self.environ)
        if executable is None:
            return Verdict(program.name, "absent", reason=f"`{asked}` is not on the path")
        began = time.monotonic()
        environ = dict(self.environ) | client_environment(self.files, f"http://{trial.proxy}", environ=self.environ, platform=self.platform)
        environ |= program.variables
        _prepare(program, trial.directory)
        try:
            if program.requires:
                ready = await self._child((executable, *program.requires), environ, trial, VERSION_SECONDS)
                if ready.status != 0:
                    return Verdict(program.name, "absent", reason=f"`{asked}` has not {program.missing}")
            said = await self._child((executable, *program.version), environ, trial, VERSION_SECONDS)
            if said.status != 0:
                reason = f"`{asked} {' '.join(program.version)}` fails: {_words(said, VERSION_SECONDS)}"
                return Verdict(program.name, "red", reason=reason, remedy="repair its installation")
            version = _version(said)
            state, reason, remedy = await self._try(program, trial, executable, environ)
        except OSError as error:
            return Verdict(
                program.name, "red", reason=f"{executable} cannot be started: {error.strerror}", remedy="repair its installation"
            )
        protocol = self._witness.of(trial.host).protocol
        return Verdict(program.name, state, version, reason, remedy, time.monotonic() - began, protocol)

    async def _try(self, program: Program, trial: Trial, executable: str, environ: Mapping[str, str]) -> tuple[State, str, str]:
        if program.build:
            built = await self._child((executable, *program.build), environ, trial, BUILD_SECONDS)
            if built.status != 0:
                return "red", f"its test program cannot be built: {built.last_words}", "repair its installation"
            executable = str(trial.directory / program.built)
        stdin = program.stdin(trial) if program.stdin is not None else ""
        ended = await self._child((executable, *program.arguments(trial)), environ, trial, self.seconds, stdin)
        seen = self._witness.of(trial.host)
        if seen.connected or program.by_hand is None:
            return judge(program, seen, ended, self.seconds)
        state, reason, _ = judge(program, seen, ended, self.seconds)
        again = Trial(f"{program.slug}-by-hand", trial.port, trial.proxy, trial.directory)
        ended = await self._child((executable, *program.by_hand(again)), environ, trial, self.seconds)
        trusts, why, _ = judge(program, self._witness.of(again.host), ended, self.seconds)
        addition = "sent through the proxy by hand it trusts the CA" if trusts == "green" else f"and by hand: {why}"
        return state, f"{reason}; {addition}", program.if_it_ignores_the_proxy

    async def _child(self, argv: Sequence[str], environ: Mapping[str, str], trial: Trial, seconds: float, stdin: str = "") -> Ended:
        return await run_child(argv, environ=environ, directory=trial.directory, seconds=seconds, stdin=stdin)


def judge(program: Program, seen: Seen, ended: Ended, seconds: float) -> tuple[State, str, str]:
    """Return state, reason and remedy for a program that ended so, of which the proxy saw so much."""
    if seen.requests and ended.status == 0:
        return "green", "", ""
    said = _words(ended, seconds)
    if seen.requests:
        return "red", f"its request came through, but then: {said}", "see what it says; this is not about trust"
    if seen.failure is not None and seen.failure.side == "upstream":
        return "red", f"the proxy did not reach the doctor's own server: {seen.failure.detail}", "report this as a bug of soth-mitm"
    if seen.failure is not None:
        return "red", f"it refused the certificate ({seen.failure.reason}: {seen.failure.detail}): {said}", program.if_it_distrusts
    if seen.connected:
        return "red", f"it reached the proxy but sent no request: {said}", program.if_it_distrusts
    if ended.status == 0:
        return "red", "it ended well without asking the proxy for anything", program.if_it_ignores_the_proxy
    # it may have failed before it tried: neither the proxy nor the CA had a part in that
    remedy = f"see what it says, which is not about trust; if that helps nothing, {program.if_it_ignores_the_proxy}"
    return "red", f"it never reached the proxy: {said}", remedy


def _words(ended: Ended, seconds: float) -> str:
    return f"no end within {seconds:g} s" if ended.status is None else ended.last_words


def _located(name: str, environ: Mapping[str, str]) -> str | None:
    # absolute, because each program has a working directory of its own
    found = shutil.which(name, path=environ.get("PATH"))
    return None if found is None else os.path.abspath(found)


def _version(ended: Ended) -> str:
    # a JVM says first what it was given in JAVA_TOOL_OPTIONS, addresses among it
    said = re.sub("^Picked up .*", "", f"{ended.stdout}\n{ended.stderr}", flags=re.MULTILINE)
    found = re.search(r"\d+(?:\.\d+)+", said)
    return found[0] if found is not None else ""


def _prepare(program: Program, directory: Path) -> None:
    directory.mkdir()
    for name, text in program.sources.items():
        (directory / name).write_text(text, encoding="utf-8")


def _with_port(authority: str) -> str:
    return authority if authority.rpartition(":")[2].isdigit() and ":" in authority else f"{authority}:443"
