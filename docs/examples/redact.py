"""Takes the salary out of a JSON answer, and a tool out of a `tools/list` answer: soth-mitm run --handler redact:Redact."""

import json
from typing import Any

from soth_mitm import InterceptHandler, RawResponse, ResponseDecision


class Redact(InterceptHandler):
    def on_response_head(self, response: RawResponse) -> ResponseDecision:
        is_json = "json" in (response.headers.get("content-type") or "")
        return ResponseDecision.HOLD if is_json and not response.streaming else ResponseDecision.PASS

    def on_response_body(self, response: RawResponse) -> ResponseDecision:
        if not response.body_complete or response.decode_error:
            return ResponseDecision.block(502, "this answer cannot be inspected\n")
        if not response.body:
            return ResponseDecision.PASS
        try:
            answer = json.loads(response.body)
        except ValueError:
            return ResponseDecision.block(502, "this answer is no JSON\n")
        redacted = without_secrets(answer)
        return ResponseDecision.PASS if redacted == answer else ResponseDecision.replace(body=json.dumps(redacted))


def without_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [without_secrets(each) for each in value if not (isinstance(each, dict) and each.get("name") == "run_shell")]
    if isinstance(value, dict):
        return {name: without_secrets(each) for name, each in value.items() if name != "salary"}
    return value
