"""A handler for the command line: a private key does not leave this machine by accident.

It blocks what it cannot read: a body that is too long, late, encoded in a way that is not known, or a conversation. It finds keys that are
written out; a program that wants to hide one can encrypt it, and only a list of what may be asked for stops that.

cd docs/examples && soth-mitm run --destination 'api.example.com:443' --handler gate:Gate
"""

import re

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest

# as text, in JSON and in a form, where a blank is + or %20
PRIVATE_KEY = re.compile(rb"-----BEGIN[ +%\w]*PRIVATE[ +%\w]*KEY-----")


class Gate(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        if request.body_problem:
            return HandlerDecision.block(403, f"this body cannot be inspected: {request.body_problem}\n")
        if PRIVATE_KEY.search(request.body.replace(b"\0", b"")):  # in UTF-16 as well
            return HandlerDecision.block(403, b"a private key does not leave this machine\n")
        return HandlerDecision.ALLOW
