"""Flows that have ended, by the pattern of the configuration that their destination matches."""

from soth_mitm._dataplane.http.counters import FlowCounts
from soth_mitm.destinations import DestinationPattern
from soth_mitm.metrics import FLOW_OUTCOMES, FLOW_PROTOCOLS, STATUS_CLASSES

# Those beyond it are counted together
MAX_PATTERNS = 200
UNLISTED = "unlisted"
OTHER = "other"


class PatternCounts:
    """The counts of each pattern, kept over reloads. No name is a host that a client chose."""

    def __init__(self, unlisted: FlowCounts) -> None:
        self._unlisted = unlisted
        self._by_pattern: dict[str, FlowCounts] = {}
        self._other = FlowCounts(OTHER)

    def of(self, pattern: DestinationPattern | None) -> FlowCounts:
        """Return where flows are counted to destinations that match `pattern`, None for those that match none."""
        if pattern is None:
            return self._unlisted
        name = str(pattern)
        counts = self._by_pattern.get(name)
        if counts is None:
            if len(self._by_pattern) >= MAX_PATTERNS:
                return self._other
            counts = self._by_pattern[name] = FlowCounts(name)
        return counts

    def counts(self) -> dict[str, int]:
        """Return the counts by pattern, protocol, outcome and class of status, with a blank between; those that are not zero."""
        found = {}
        for name, ended in (*self._by_pattern.items(), (OTHER, self._other), (UNLISTED, self._unlisted)):
            for protocol, end, status, count in ended.counts:
                found[f"{name} {FLOW_PROTOCOLS[protocol]} {FLOW_OUTCOMES[end]} {STATUS_CLASSES[status]}"] = count
        return found
