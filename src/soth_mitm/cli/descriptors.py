"""How many files this process may have open: enough for the connections that the configuration allows."""

import sys

# the listening sockets, the loop, look-ups of processes, certificates being read
BESIDES = 256


def allow_connections(count: int) -> str | None:
    """Raise this process's own limit so that `count` clients can be served; return what to say when the system does not let us.

    A connection takes two: the client's, and the upstream's.
    """
    if sys.platform == "win32":
        return None
    import resource

    wanted = 2 * count + BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError):
        # macOS has a lower limit of its own behind an infinite one
        reachable = soft
    if reachable == wanted:
        return None
    return (
        f"this process may open {reachable} files, and max_concurrent_flows = {count} may need {wanted}: raise its hard limit "
        f"(`ulimit -Hn {wanted}` as root, LimitNOFILE= in systemd), or set max_concurrent_flows = {max(1, (reachable - BESIDES) // 2)}"
    )
