"""A handler for the command line: private keys do not leave this machine.

cd docs/examples && soth-mitm run --destination 'api.example.com:443' --handler gate:Gate
"""

import re

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest

PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


class Gate(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        if PRIVATE_KEY.search(request.body):
            return HandlerDecision.block(403, b"a private key does not leave this machine\n")
        return HandlerDecision.ALLOW
