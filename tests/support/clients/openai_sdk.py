"""The openai SDK, through the proxy that the environment names: a chat and a response, streamed and whole. Prints what it got as JSON."""

import json
import sys

import openai


def main() -> None:
    client = openai.OpenAI(api_key="sk-test", max_retries=0)
    messages = [{"role": "user", "content": "What is the weather in Berlin?"}]
    got = {}
    whole = client.chat.completions.create(model="gpt-4.1", messages=messages)  # type: ignore[call-overload]
    got["chat"] = [whole.choices[0].message.content, whole.usage.total_tokens]
    text, usage = "", None
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        model="gpt-4.1", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    got["chat stream"] = [text, usage.total_tokens]
    response = client.responses.create(model="gpt-5", input="What is the weather in Berlin?")
    got["response"] = [response.output_text, response.usage.total_tokens]
    text = ""
    for event in client.responses.create(model="gpt-5", input="What is the weather in Berlin?", stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            got["response stream"] = [text, event.response.usage.total_tokens]
    json.dump(got, sys.stdout)


main()
