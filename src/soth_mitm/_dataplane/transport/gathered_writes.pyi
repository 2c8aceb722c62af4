from typing import final

@final
class GatheredWrites:
    """The endpoints of a loop that are to be flushed at the end of its turn."""

    def write(self) -> None: ...
