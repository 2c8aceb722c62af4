"""Print what each call of a model used, while the program that asked gets its answer as it comes.

python docs/examples/count_tokens.py api.anthropic.com:443 api.openai.com:443
"""

import sys

from soth_mitm import MitmConfig, MitmProxyBuilder
from soth_mitm.llm import LlmObserver, ModelCall


def known(value: object) -> str:
    """What was not said is unknown, which is not zero."""
    return "unknown" if value is None else str(value)


def show(call: ModelCall) -> None:
    tokens = call.tokens
    print(f"{call.provider} {call.model!a}: {call.outcome}, {known(tokens.input)} tokens in, {known(tokens.output)} out", flush=True)
    if tokens.cache_read:
        print(f"  {tokens.cache_read} of them from the cache", flush=True)
    if call.first_token is not None:
        print(f"  first token after {call.first_token:.2f} s", flush=True)
    for tool in call.tools:
        print(f"  wants {tool.name!a} with {tool.arguments!a}", flush=True)


class CountTokens(LlmObserver):
    def __init__(self) -> None:
        super().__init__(show)


if __name__ == "__main__":
    config = MitmConfig()
    config.interception.destinations.extend(sys.argv[1:] or ["api.anthropic.com:443", "api.openai.com:443"])
    MitmProxyBuilder(config, CountTokens()).build().run_forever()
