"""Running the tools of trust stores, and telling why one of them refused."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from soth_mitm.errors import CaError, CaOperationError, CaPermissionError, CaUnsupportedError

# Administrators' tools are not on every user's path.
_MORE_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Long enough for a person who is asked for a password in a window.
COMMAND_SECONDS = 180
_PACKAGES = {"certutil": "Debian and Ubuntu: libnss3-tools; Fedora: nss-tools; macOS: brew install nss"}
_REFUSALS = (
    "permission denied",
    "operation not permitted",
    "access is denied",
    "0x80070005",  # E_ACCESSDENIED
    "0x800704c7",  # ERROR_CANCELLED: the person said no
    "authorization was denied",
    "authorization was cancel",
    "user canceled",
    "user interaction is not allowed",
    "must be root",
    "sec_error_read_only",
)


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool answered."""

    status: int
    stdout: str = ""
    stderr: str = ""

    @property
    def text(self) -> str:
        """Everything it said, without blank lines."""
        return "\n".join(line.rstrip() for line in (self.stdout + "\n" + self.stderr).splitlines() if line.strip())


class Run(Protocol):
    """Runs a tool to its end. `CaUnsupportedError` if it is not installed."""

    def __call__(self, argv: Sequence[str], stdin: str = "") -> Output: ...


def run_command(argv: Sequence[str], stdin: str = "") -> Output:
    """Run a tool for at most `COMMAND_SECONDS`, in English."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_MORE_PLACES))
    tool = shutil.which(argv[0], path=path)
    if tool is None:
        hint = f" ({_PACKAGES[argv[0]]})" if argv[0] in _PACKAGES else ""
        raise CaUnsupportedError(f"`{argv[0]}` is not installed{hint}")
    try:
        done = subprocess.run(
            (tool, *argv[1:]),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=COMMAND_SECONDS,
            env=os.environ | {"LC_ALL": "C", "PATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CaOperationError(f"`{shlex.join(argv)}` did not end within {COMMAND_SECONDS} s") from error
    return Output(done.returncode, done.stdout, done.stderr)


def failure(argv: Sequence[str], output: Output, remedy: str) -> CaError:
    """Return the error for a tool that failed: `CaPermissionError` with `remedy`, a command, if it was refused, else `CaOperationError`."""
    said = output.text or f"exit status {output.status}, and no word"
    if any(phrase in said.lower() for phrase in _REFUSALS):
        return CaPermissionError(f"`{shlex.join(argv)}` was refused: {said}; run: {remedy}")
    return CaOperationError(f"`{shlex.join(argv)}` failed: {said}")
