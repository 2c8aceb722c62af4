"""boto3 as a client of Bedrock, through the proxy that the environment names: converse, streamed and whole. Prints what it got as JSON."""

import json
import sys

import boto3


def main() -> None:
    client = boto3.client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test", aws_session_token="test"
    )
    asked = {"modelId": "us.amazon.nova-pro-v1:0", "messages": [{"role": "user", "content": [{"text": "What is the weather?"}]}]}
    whole = client.converse(**asked)
    got = {"converse": ["".join(block.get("text", "") for block in whole["output"]["message"]["content"]), whole["usage"]["totalTokens"]]}
    text, total = "", None
    for event in client.converse_stream(**asked)["stream"]:
        text += event.get("contentBlockDelta", {}).get("delta", {}).get("text", "")
        total = event.get("metadata", {}).get("usage", {}).get("totalTokens", total)
    got["converse stream"] = [text, total]
    json.dump(got, sys.stdout)


main()
