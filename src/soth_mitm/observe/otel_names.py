"""Names of OpenTelemetry's semantic conventions: the HTTP ones are stable, of those for generative AI there are two sets."""

import os
from typing import NamedTuple

METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))
"""Methods that are named; any other one is `_OTHER`."""
OTHER = "_OTHER"

HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
CALL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(float(4**power) for power in range(14))

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""The variable by which one asks for the newer set, with `gen_ai_latest_experimental`."""


class CallNames(NamedTuple):
    """What the figures of calls of models are called; `""`: there is no such figure in this set."""

    duration: str
    first_chunk: str
    tokens: str
    """A histogram with the kind of the tokens as attribute."""
    tokens_of_call: dict[str, str]
    """Histograms of the tokens of one call, by kind."""
    tokens_in_all: dict[str, str]
    """Counters, by kind."""


WIDE_SPREAD = CallNames(
    "gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk", "gen_ai.client.token.usage", {}, {}
)
LATEST = CallNames(
    "gen_ai.client.inference.duration",
    "gen_ai.client.inference.time_to_first_chunk",
    "",
    {"input": "gen_ai.client.inference.operation.input_tokens", "output": "gen_ai.client.inference.operation.output_tokens"},
    {
        "input": "gen_ai.client.inference.usage.input_tokens",
        "output": "gen_ai.client.inference.usage.output_tokens",
        "cache_read": "gen_ai.client.inference.usage.cache_read.input_tokens",
        "cache_write": "gen_ai.client.inference.usage.cache_write.input_tokens",
        "reasoning": "gen_ai.client.inference.usage.reasoning.output_tokens",
    },
)


def call_names() -> CallNames:
    """Return the set that the environment asks for."""
    asked = {each.strip() for each in os.environ.get(OPT_IN, "").split(",")}
    return LATEST if "gen_ai_latest_experimental" in asked else WIDE_SPREAD


class Bounded:
    """Lets so many different words of a peer be labels; further ones are `_OTHER`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, word: str) -> str:
        if word not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(word)
        return word
