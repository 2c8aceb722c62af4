"""Who a process is, as psutil tells it: macOS and Windows, where psutil reads what Linux keeps in procfs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import psutil

from soth_mitm.connection import ProcessInfo
from soth_mitm.process.naming import is_interpreter, program_name, script_of

_Value = TypeVar("_Value")


def start_token(pid: int) -> str | None:
    """Return a text that changes when `pid` is reused or takes another name, None if there is no such process or it is not visible."""
    try:
        process = psutil.Process(pid)
        return f"{process.create_time():.6f} {process.name()}"
    except psutil.Error:
        return None


def describe(pid: int, bundle_id_of: Callable[[str], str | None] | None = None) -> ProcessInfo | None:
    """Return who `pid` is, None if it is gone; what may not be read stays None. `bundle_id_of` finds the bundle of an executable."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name = process.name()
            path = _readable(process.exe) or None
            argv = _readable(process.cmdline) or []
            parent = _readable(process.parent)
            uid = _real_uid(process)
    except psutil.Error:
        return None
    script = script_of(path or name, argv)
    script_path = None if script is None else _real_path(process, script)
    return ProcessInfo(
        pid=pid,
        bundle_id=bundle_id_of(path) if path and bundle_id_of else None,
        exe_name=program_name(path or name, argv, lambda script: _real_path(process, script)),
        exe_path=path,
        parent_pid=parent.pid if parent else None,
        parent_process_name=_readable(parent.name) if parent else None,
        uid=uid,
        interpreter_path=path if path and is_interpreter(path) else None,
        script_path=script_path if script_path and os.path.isfile(script_path) else None,
    )


def _real_uid(process: psutil.Process) -> int | None:
    if sys.platform == "win32":
        return None
    uids = _readable(process.uids)
    return None if uids is None else int(uids.real)


def _readable(read: Callable[[], _Value]) -> _Value | None:
    try:
        return read()
    except psutil.Error:
        return None


def _real_path(process: psutil.Process, path: str) -> str:
    return os.path.realpath(os.path.join(_readable(process.cwd) or os.sep, path))
