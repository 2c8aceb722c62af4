"""Running a program to its end or to its deadline, with everything that it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KEPT_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended. `status` is None if it was cut at the deadline."""

    status: int | None
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The line that says most: the last one on standard error, else on standard output."""
        for text in (self.stderr, self.stdout):
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return next((line for line in reversed(lines) if _names_a_fault(line)), lines[-1])[:300]
        return f"exit status {self.status}, and no word"


async def run_child(argv: Sequence[str], *, environ: Mapping[str, str], directory: Path, seconds: float, stdin: str = "") -> Ended:
    """Run `argv` in `directory` for at most `seconds`; then it is killed, with its children. Raises OSError if it cannot be started."""
    # a file, not a pipe: a program may end without having read it
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode())
        given.seek(0)
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=given,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environ),
            cwd=directory,
            start_new_session=sys.platform != "win32",
        )
    talking = asyncio.ensure_future(child.communicate())
    try:
        done, _ = await asyncio.wait((talking,), timeout=seconds)
    finally:
        if not talking.done():
            _kill(child)
    stdout, stderr = await talking
    return Ended(child.returncode if done else None, _text(stdout), _text(stderr))


def _kill(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if sys.platform == "win32":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")[-KEPT_CHARACTERS:]


def _names_a_fault(line: str) -> bool:
    return any(word in line.lower() for word in ("error", "fail", "fatal", "certificate", "refused", "could not", "cannot"))
