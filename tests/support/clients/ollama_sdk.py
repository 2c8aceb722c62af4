"""The ollama SDK, through the proxy that the environment names: a chat, streamed and whole. Prints what it got as JSON."""

import json
import sys

import ollama


def main() -> None:
    client = ollama.Client(host=sys.argv[1])
    asked = {"model": "qwen3:8b", "messages": [{"role": "user", "content": "What is the weather?"}]}
    whole = client.chat(**asked)
    got = {"chat": [whole.message.content, whole.eval_count]}
    text, count = "", None
    for part in client.chat(**asked, stream=True):
        text += part.message.content or ""
        count = part.eval_count if part.done else count
    got["chat stream"] = [text, count]
    json.dump(got, sys.stdout)


main()
