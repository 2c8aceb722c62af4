"""The program that `soth-mitm exec` starts: its streams are ours, and so are its signals and its end."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

NOT_EXECUTABLE, NOT_FOUND = 126, 127
# those that a terminal sends to both of us
_OF_TERMINALS = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGQUIT", "SIGWINCH") if hasattr(signal, name))
_PASSED_ON = frozenset(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class CannotStartError(Exception):
    """The program cannot be started; `code` is what a shell would end with."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Child:
    """Runs a command. To be made and used in the main thread, which alone may handle signals."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def run(self, environment: Mapping[str, str]) -> int:
        """Run to the end and return the exit code, 128 + its number if a signal ended it; `CannotStartError` if there is no such program.

        What is sent to us goes on to it. The terminal sends SIGINT and SIGQUIT to both of us, and only the program is to answer them.
        """
        before = {number: signal.signal(number, self._pass_on) for number in _OF_TERMINALS | _PASSED_ON}
        try:
            self._process = self._start(environment)
            for number in self._early:
                self._process.send_signal(number)
            code = self._process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 128 - code if code < 0 else code

    def _start(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(self._command, env=environment)
        except FileNotFoundError as error:
            raise CannotStartError(NOT_FOUND, f"{self._command[0]}: there is no such program") from error
        except OSError as error:
            raise CannotStartError(NOT_EXECUTABLE, f"{self._command[0]}: {error.strerror}") from error

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if number in _OF_TERMINALS and _is_from_the_terminal():
            return
        if self._process is None:
            self._early.append(number)
        elif self._process.poll() is None:
            self._process.send_signal(number)


def _is_from_the_terminal() -> bool:
    """Tell whether we are in the foreground of a terminal, whose keys then reach the program without us."""
    if sys.platform == "win32":
        return True
    for descriptor in (0, 1, 2):
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:
            continue
    return False
