"""`soth-mitm view` as a process beside a proxy, so that showing flows takes nothing from the traffic."""

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import click

from soth_mitm.addresses import parse_bind_address
from soth_mitm.cli.exits import START_FAILED, Failure
from soth_mitm.connection import SocketAddress

PACKAGES = ("starlette", "uvicorn")
DEFAULT_VIEW = "127.0.0.1:8081"
END_SECONDS = 5.0


def require_view() -> None:
    """Raise `Failure` unless the packages of the extra `view` are here."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        what = f"the view needs {' and '.join(missing)}"
        raise Failure(START_FAILED, f"{what}, which the extra `view` brings: pip install 'soth-mitm[view]'")


class ViewProcess:
    """A view of a store at `bind`, a loopback address. It listens from now on, and is served from `start` on; `close` ends it.

    `BindError` says why it cannot listen there.
    """

    def __init__(self, bind: str) -> None:
        require_view()
        # this needs the packages of the extra
        from soth_mitm.views.serving import open_view_socket

        self._listening: socket.socket | None = open_view_socket(bind)
        self.address: SocketAddress = self._listening.getsockname()[:2]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, store: Path) -> str:
        """Serve `store`, which is there, and return the address that opens the view once. It may take a second."""
        assert self._listening is not None, "it is started once"
        with self._listening:
            descriptor = self._listening.fileno()
            command = [sys.executable, "-m", "soth_mitm", "view", str(store), "--no-open", "--listening", str(descriptor)]
            # the signals of the terminal are the proxy's: the view stays until that has drained
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(descriptor,), start_new_session=True
            )
        self._listening = None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith("view "):
            raise Failure(START_FAILED, "the view did not start; what is above says why")
        return line.removeprefix("view").strip()

    def close(self) -> None:
        """End it, and wait for that."""
        if self._listening is not None:
            self._listening.close()
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def view_address(text: str) -> str:
    """Return an address to bind a view to, as it is written on the command line: HOST:PORT, or PORT. `UsageError` says what is wrong."""
    bind = f"127.0.0.1:{text}" if text.isdigit() else text
    try:
        parse_bind_address(bind)
    except ValueError as error:
        raise click.UsageError(f"--view {text}: {error}") from error
    return bind
