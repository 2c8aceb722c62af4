"""A file that a sink writes: readable by its owner only, and whole up to its last write, also where the disk is full."""

import os
from pathlib import Path

from soth_mitm.escaping import get_logger

log = get_logger("soth_mitm.observe")


class SinkFile:
    """A file that is made anew. What cannot be written is taken back, so that nothing half stands in it.

    `OSError` from the constructor names the file. From then on `write` says whether it could, and counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes that are in it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o600)
        if hasattr(os, "fchmod"):
            # it may have been there, for others to read
            os.fchmod(self._descriptor, 0o600)
        self.errors = 0
        """Writes that failed."""
        self.last_error: str | None = None
        self._is_torn = False

    def write(self, data: bytes, *, at: int | None = None) -> bool:
        """Write `data` at an offset, or at the end; tell whether all of it is there. Else the file is as long as it was, if that works."""
        start = self.size if at is None else at
        try:
            if self._is_torn:
                os.ftruncate(self._descriptor, self.size)
                self._is_torn = False
            os.lseek(self._descriptor, start, os.SEEK_SET)
            done = 0
            while done < len(data):
                done += os.write(self._descriptor, data[done:] if done else data)
        except OSError as error:
            self.failed(error)
            return False
        self.size = max(self.size, start + len(data))
        return True

    def begin(self, data: bytes) -> None:
        """Write what the file begins with. `OSError`: it cannot be written; the file is closed then."""
        if not self.write(data):
            self.close()
            raise OSError(self.last_error)

    def take_back(self, size: int) -> None:
        """Make the file end at `size` bytes again."""
        self.size = size
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._is_torn = True
            self.last_error = str(error)

    def failed(self, error: OSError) -> None:
        """Note that something could not be written."""
        self.errors += 1
        self.last_error = f"{self.path}: {error.strerror or error}"
        if self.errors == 1:
            log.warning("a sink cannot write %s: %s (further failures are counted only)", self.path, error.strerror)
        self.take_back(self.size)

    def close(self) -> None:
        """Close the file, once; nothing may be written any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
