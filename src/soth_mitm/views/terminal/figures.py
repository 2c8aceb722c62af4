"""What stands at the top of the screen: sums over all flows of a store."""

from pathlib import Path
from typing import NamedTuple

from soth_mitm.observe.store.reader import StoreReader


class Figures(NamedTuple):
    """Sums; None is unknown."""

    is_live: bool
    """A proxy writes the store."""
    listening: str
    """Where the newest proxy that lives listens; `""`: there is none."""
    flows: int
    open: int
    dropped: int
    tokens_in: int | None
    tokens_out: int | None
    used_bytes: int


def read_figures(path: Path) -> Figures:
    """Read them. `StoreError` if the store cannot be read."""
    with StoreReader(path) as reader:
        facets, sessions = reader.facets(), reader.sessions()
        live = [session for session in sessions if session.is_live]
        return Figures(
            is_live=bool(live),
            listening=(live[0].listening or "").partition(",")[0] if live else "",
            flows=facets.flows,
            open=facets.views.get("open", 0),
            dropped=sum(session.dropped for session in sessions),
            tokens_in=facets.tokens_in,
            tokens_out=facets.tokens_out,
            used_bytes=reader.used_bytes(),
        )
