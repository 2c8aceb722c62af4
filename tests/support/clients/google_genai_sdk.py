"""The google-genai SDK, through the proxy that the environment names: an answer, streamed and whole. Prints what it got as JSON."""

import json
import sys

from google import genai


def main() -> None:
    client = genai.Client(api_key="test")
    asked = {"model": "gemini-2.5-pro", "contents": "What is the weather?"}
    whole = client.models.generate_content(**asked)
    got = {"content": ["".join(part.text or "" for part in whole.candidates[0].content.parts), whole.usage_metadata.total_token_count]}
    text, total = "", None
    for chunk in client.models.generate_content_stream(**asked):
        text += "".join(part.text or "" for part in chunk.candidates[0].content.parts)
        total = chunk.usage_metadata.total_token_count if chunk.usage_metadata else total
    got["content stream"] = [text, total]
    json.dump(got, sys.stdout)


main()
