"""Writing the CA's files: whole or not at all, private from the first byte, one process at a time."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soth_mitm.errors import CaError, CaMaterialError, CaOperationError, CaPermissionError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_NAME = ".soth-mitm-ca.lock"


def make_directories(*paths: Path) -> None:
    """Make the directories that `paths` are to be in; those that we make are ours alone."""
    for directory in {path.parent for path in paths}:
        try:
            # Parents that are missing too get the system's usual mode; only the last one is ours alone.
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
        except PermissionError as error:
            raise CaPermissionError(f"the CA's directory {directory} cannot be made: permission denied") from error
        except OSError as error:
            raise CaMaterialError(f"the CA's directory {directory} cannot be made: {error.strerror}") from error


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Put `data` in place of what `path` holds; nobody sees a part of it, nor a mode wider than `mode`. Raises `CaError`."""
    write_together((path, data, mode))


def write_together(*files: tuple[Path, bytes, int]) -> None:
    """Do as `write_atomically` for several files; a disk that has no room for the last one is noticed before the first is replaced."""
    written: list[tuple[Path, str]] = []
    try:
        for path, data, mode in files:
            try:
                # mkstemp makes the file 0600: the key is never readable by others, not even for a moment.
                descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
                written.append((path, temporary))
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, mode)
            except OSError as error:
                raise _not_written(path, error) from error
        for path, temporary in written:
            try:
                os.replace(temporary, path)
            except OSError as error:
                raise _not_written(path, error) from error
    finally:
        for _, temporary in written:
            Path(temporary).unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> CaError:
    if isinstance(error, PermissionError):
        return CaPermissionError(f"{path} cannot be written: permission denied in {path.parent}")
    return CaOperationError(f"{path} cannot be written: {error.strerror}")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the CA's lock of `directory`; the system releases it if we die. POSIX locks the directory itself, so no file is left."""
    try:
        if sys.platform == "win32":
            descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        else:
            descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError as error:
        raise CaPermissionError(f"the CA's directory {directory} is not ours to write: permission denied") from error
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
