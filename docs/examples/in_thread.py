"""The proxy in a program without asyncio: it serves in a thread of its own while the program goes on.

python docs/examples/in_thread.py https://api.example.com/
"""

import ssl
import sys
import threading
import urllib.request
from urllib.parse import urlsplit

from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder, RawResponse


class Count(InterceptHandler):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.seen_one = threading.Event()

    def on_response(self, response: RawResponse) -> None:
        if response.request is not None:
            self.seen.append((response.request.url, response.status))
        self.seen_one.set()


def fetch_through_proxy(url: str, config: MitmConfig) -> list[tuple[str, int]]:
    parts = urlsplit(url)
    config.interception.destinations.append(f"{parts.hostname}:{parts.port or 443}")
    count = Count()
    with MitmProxyBuilder(config, count).build().start_in_thread() as handle:
        proxy = urllib.request.ProxyHandler({"https": f"http://{handle.address}:{handle.port}"})
        trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=handle.ca_certificate_path))
        with urllib.request.build_opener(proxy, trust).open(url, timeout=10) as response:
            print(f"{response.status}, {len(response.read())} bytes, through {handle.address}:{handle.port}")
        # the handler hears of a response after the client has it
        count.seen_one.wait(10)
    return count.seen


if __name__ == "__main__":
    print(fetch_through_proxy(sys.argv[1], MitmConfig(bind="127.0.0.1:0")))
