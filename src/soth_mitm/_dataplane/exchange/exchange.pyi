from typing import final

from soth_mitm._dataplane.exchange.exchange_upgrades import ExchangeUpgrades

@final
class Exchange(ExchangeUpgrades):
    """One request and its response."""

    def take_turn(self) -> None:
        """Go on with what one turn of the loop was too short for. Called by the loop."""

    def decoded_apart(self, result: tuple[bytes, str | None] | None) -> None:
        """Go on with the body that was decoded. Called by the loop."""
