"""How writers wake the readers of a store: each reader has a datagram socket in a folder beside the file; writers send a byte to each.

On Windows it is a socket of the loopback interface, and the file in the folder says its port.
"""

import contextlib
import os
import select
import socket
import stat
import sys
import time
from pathlib import Path

from soth_mitm.errors import StoreError

# Bytes of the path of a Unix socket, on the systems where it may be shortest
LONGEST_PATH = 100
# A reader that could not attach asks this often whether the file has changed
POLL_SECONDS = 0.25
_BURST = 64


def attachments_folder(path: Path) -> Path:
    """Return the folder in which readers of the store at `path` are entered."""
    return path.with_name(f"{path.name}-views")


class Attachment:
    """A reader that is woken. `wait` for it, or for `fileno`, and then `drain`. `StoreError` if its folder is another user's."""

    def __init__(self, path: Path) -> None:
        folder = attachments_folder(path)
        self._path = path
        self._entry = folder / f"{os.getpid()}-{os.urandom(4).hex()}"
        self._state: object = None
        self._socket: socket.socket | None = None
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            # of a store on a file system that is read-only, whose readers look for themselves
            return
        if sys.platform == "win32":
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
            self._entry.write_text(str(self._socket.getsockname()[1]))
        elif not _is_ours(folder):
            raise StoreError(f"{folder} belongs to another user; remove it, or give the store another path")
        else:
            self._bind(folder)
        if self._socket is not None:
            self._socket.setblocking(False)

    def _bind(self, folder: Path) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with _short(self._entry) as name:
                made.bind(name)
        except OSError:
            made.close()
        else:
            self._socket = made

    def fileno(self) -> int:
        """Return the descriptor that can be read from when something was written; -1 where there is none, and `wait` looks."""
        return -1 if self._socket is None else self._socket.fileno()

    def wait(self, timeout: float) -> bool:
        """Wait until a writer says that it has written, at most so many seconds; tell whether one did."""
        if self._socket is None:
            return self._wait_for_file(timeout)
        readable, _, _ = select.select([self._socket], [], [], timeout)
        if readable:
            self.drain()
        return bool(readable)

    def _wait_for_file(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        while True:
            state = _state_of(self._path)
            if state != self._state:
                self._state = state
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, POLL_SECONDS))

    def drain(self) -> None:
        """Take what writers have sent."""
        if self._socket is not None:
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                while True:
                    self._socket.recv(16)

    def close(self) -> None:
        """Be woken no longer."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                self._entry.unlink()


class Bell:
    """Wakes the readers of a store. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._folder = attachments_folder(path)
        family = socket.AF_INET if sys.platform == "win32" else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._changed: int | None = None
        self._entries: list[Path] = []

    def ring(self) -> None:
        """Send a byte to each reader that is there; one that has gone is removed."""
        try:
            found = self._folder.stat()
        except OSError:
            return
        if self._changed != found.st_mtime_ns:
            self._changed = found.st_mtime_ns
            self._entries = list(self._folder.iterdir())[:_BURST] if sys.platform == "win32" or _is_ours(self._folder) else []
        for entry in self._entries:
            try:
                self._send(entry)
            except BlockingIOError:
                # it has a byte to read already
                continue
            except (ConnectionError, FileNotFoundError, ValueError):
                self._changed = None
                with contextlib.suppress(OSError):
                    entry.unlink()
            except OSError:
                self._changed = None

    def _send(self, entry: Path) -> None:
        if sys.platform == "win32":
            self._socket.sendto(b"\n", ("127.0.0.1", int(entry.read_text())))
            return
        with _short(entry) as name:
            self._socket.sendto(b"\n", name)

    def close(self) -> None:
        """Wake nobody any longer."""
        self._socket.close()


@contextlib.contextmanager
def _short(path: Path):  # type: ignore[no-untyped-def]
    """Give a name of `path` that is short enough for a socket, where the system has one."""
    name = str(path)
    if len(os.fsencode(name)) <= LONGEST_PATH or sys.platform != "linux":
        yield name
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _state_of(path: Path) -> object:
    states = []
    for each in (path, path.with_name(f"{path.name}-wal")):
        try:
            found = each.stat()
        except OSError:
            states.append((0, 0))
        else:
            states.append((found.st_mtime_ns, found.st_size))
    return states
