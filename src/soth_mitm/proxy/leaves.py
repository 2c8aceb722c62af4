"""The leaf certificates of a proxy, through reloads and rotations of its CA."""

from soth_mitm.config import MitmConfig
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.leaf import LeafStore


class Leaves:
    """The store that new configurations take their leaves from, and how many leaves all stores have minted."""

    def __init__(self, ca: CertificateAuthority, config: MitmConfig) -> None:
        self._ca = ca
        self._limits = _limits(config)
        self._minted_before = 0
        self.store = self._new_store()

    def _new_store(self) -> LeafStore:
        capacity, validity_days = self._limits
        return LeafStore(self._ca, capacity=capacity, validity_days=validity_days)

    def configure(self, config: MitmConfig) -> None:
        """Use another store if `config` has other limits."""
        if _limits(config) != self._limits:
            self._limits = _limits(config)
            self._replace()

    def rotate(self, ca: CertificateAuthority) -> None:
        """Use a store that signs with `ca`."""
        self._ca = ca
        self._replace()

    def _replace(self) -> None:
        self._minted_before += self.store.counters().minted
        self.store = self._new_store()

    @property
    def minted(self) -> int:
        """How many leaves were minted."""
        return self._minted_before + self.store.counters().minted


def _limits(config: MitmConfig) -> tuple[int, int]:
    return config.tls.leaf_cache_capacity, config.tls.leaf_validity_days
