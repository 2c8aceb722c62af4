from typing import final

from soth_mitm._dataplane.exchange.exchange_stages import ExchangeStages

@final
class Exchange(ExchangeStages):
    """One request and its response."""

    def take_turn(self) -> None:
        """Go on with what one turn of the loop was too short for. Called by the loop."""

    def decoded_apart(self, result: tuple[bytes, str | None] | None) -> None:
        """Go on with the body that was decoded. Called by the loop."""

    def on_values(self, values: dict[int, bytes] | None, why: str) -> None:
        """Go on with the values that the request needs; None: `why` there are none. Called by the loop."""
