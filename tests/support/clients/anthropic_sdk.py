"""The anthropic SDK, through the proxy that the environment names: a message, streamed and whole. Prints what it got as JSON."""

import json
import sys

import anthropic


def main() -> None:
    client = anthropic.Anthropic(api_key="sk-test", max_retries=0)
    asked = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": [{"role": "user", "content": "What is the weather?"}]}
    whole = client.messages.create(**asked)
    got = {"message": [[block.type for block in whole.content], whole.usage.output_tokens]}
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    got["message stream"] = [[block.type for block in final.content], final.usage.output_tokens]
    json.dump(got, sys.stdout)


main()
