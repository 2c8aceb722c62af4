"""Whether a command keeps the flows that pass: `--store FILE`, `--no-store`, or what it does unless it is told."""

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from soth_mitm.cli.exits import SINK_FAILED, Failure
from soth_mitm.errors import StoreError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.store.place import default_store_path
from soth_mitm.observe.store.schema import open_for_writing
from soth_mitm.observe.store.sink import SqliteSink

Command = TypeVar("Command")

log = get_logger("soth_mitm.cli")

MAX_BYTES = 256 << 20
DAYS = 7


class KeptFlows(NamedTuple):
    """Where flows are kept, and the sink that does so."""

    path: Path
    sink: SqliteSink

    @property
    def words(self) -> str:
        """Say it in a line."""
        return f"{self.path}, credentials masked, {MAX_BYTES >> 20} MiB and {DAYS} days at most (--no-store: nothing)"


def store_options(command: Command) -> Command:
    """Add --store and --no-store."""
    given: Any = command
    given = click.option("--no-store", is_flag=True, help="Keep no flows.")(given)
    what = "Keep flows in this file, for `soth-mitm flows`.  [default: flows.db in the user's state directory]"
    given = click.option("--store", metavar="FILE", help=what)(given)
    return given  # type: ignore[no-any-return]


def kept_flows(store: str | None, no_store: bool, *, by_default: bool) -> KeptFlows | None:
    """Return what the options ask for, None if nothing is to be kept. The command ends where the file of --store cannot be used.

    Without --store a file that cannot be used is a warning, and nothing is kept.
    """
    if no_store:
        if store is not None:
            raise click.UsageError("--store and --no-store exclude each other")
        return None
    if store is None and not by_default:
        return None
    try:
        path = default_store_path() if store is None else Path(store)
        open_for_writing(path).close()
    except StoreError as error:
        if store is not None:
            raise Failure(SINK_FAILED, str(error)) from error
        log.warning("no flows are kept: %s", error)
        return None
    return KeptFlows(path, SqliteSink(path, max_bytes=MAX_BYTES, max_age=DAYS * 86_400))
