"""Running a store's tool: its answer, its absence, its refusals."""

from __future__ import annotations

import sys

import pytest

from soth_mitm.errors import CaOperationError, CaPermissionError, CaUnsupportedError
from soth_mitm.tls.trust import command
from soth_mitm.tls.trust.command import Output, failure, run_command


def test_what_a_tool_answers() -> None:
    code = "import os, sys; print(sys.stdin.read(), os.environ['LC_ALL']); print('x', file=sys.stderr); sys.exit(3)"
    output = run_command((sys.executable, "-c", code), "given")
    assert (output.status, output.stdout.split(), output.stderr.split()) == (3, ["given", "C"], ["x"])
    assert output.text == "given C\nx"


def test_a_tool_that_is_not_installed() -> None:
    with pytest.raises(CaUnsupportedError, match="`no-such-tool-here` is not installed$"):
        run_command(("no-such-tool-here",))


def test_the_package_of_certutil_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CaUnsupportedError, match="libnss3-tools"):
        run_command(("certutil", "-L"))


def test_a_tool_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "COMMAND_SECONDS", 0.3)
    with pytest.raises(CaOperationError, match="did not end within 0.3 s"):
        run_command((sys.executable, "-c", "import threading; threading.Event().wait()"))


@pytest.mark.parametrize(
    "said",
    [
        "/etc/ssl/certs/x.pem: Permission denied",
        "CertUtil: -addstore command FAILED: 0x80070005 (WIN32: 5 ERROR_ACCESS_DENIED)\nCertUtil: Access is denied.",
        "CertUtil: -addstore command FAILED: 0x800704c7 (WIN32: 1223 ERROR_CANCELLED)",
        "SecTrustSettingsSetTrustSettings: The authorization was denied since no user interaction was possible.",
        "SecTrustSettingsSetTrustSettings: The authorization was canceled by the user.",
        "certutil: could not change trust on certificate: SEC_ERROR_READ_ONLY: security library: read-only database.",
    ],
)
def test_refusals_say_what_to_type(said: str) -> None:
    error = failure(("tool", "--do it"), Output(1, stderr=said), "sudo tool")
    assert isinstance(error, CaPermissionError)
    assert str(error).startswith("`tool '--do it'` was refused: ") and str(error).endswith("; run: sudo tool")


def test_other_failures_carry_the_output() -> None:
    error = failure(("tool",), Output(2, "out\n\n", "err\n"), "sudo tool")
    assert isinstance(error, CaOperationError) and str(error) == "`tool` failed: out\nerr"
    assert str(failure(("tool",), Output(2), "x")) == "`tool` failed: exit status 2, and no word"
