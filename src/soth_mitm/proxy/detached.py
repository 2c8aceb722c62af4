"""Exceptions that are kept as values."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def detached(error: E) -> E:
    """Return `error` without its traceback, to keep it or to hand it on.

    A traceback holds the frames that it names, and a frame often holds the exception, or the task that ended in it. Such a cycle keeps
    a connection's buffers until the garbage collector runs.
    """
    return error.with_traceback(None)
