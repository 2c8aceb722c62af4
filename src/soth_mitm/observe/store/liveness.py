"""Whether the process that wrote a session is still there."""

import psutil

# Seconds by which clocks and the system's count of its own start may differ
_LATE = 5.0


def is_alive(pid: int, began: float) -> bool:
    """Tell whether the process is there that had this id at `began`, in seconds since 1970; one that started later is another."""
    try:
        return psutil.Process(pid).create_time() < began + _LATE and psutil.pid_exists(pid)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
