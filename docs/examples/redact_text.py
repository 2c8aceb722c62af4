"""Takes addresses of e-mail and a name out of responses, also where the text of a model has them in pieces.

python -m soth_mitm run --destination 'llm.example.com:443' --handler redact_text:RedactText
"""

import re

from soth_mitm import Chain, InterceptHandler, RawResponse, rules


class Watch(InterceptHandler):
    def on_response(self, response: RawResponse) -> None:
        # what the rules have left of it
        print(response.status, response.body)


class RedactText(Chain):
    def __init__(self) -> None:
        super().__init__(
            rules.redact(re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "Project Nightingale"),
            rules.set_header("X-Redacted", "yes", where="response"),
            Watch(),
        )
