"""Run any program through a proxy of its own, and list what it asked for.

python docs/examples/run_program.py 'api.example.com:443' curl -sS https://api.example.com/
"""

import asyncio
import os
import subprocess
import sys

from soth_mitm import HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, RawRequest


class List(InterceptHandler):
    def __init__(self) -> None:
        self.urls: list[str] = []

    def on_request(self, request: RawRequest) -> HandlerDecision:
        self.urls.append(request.url)
        return HandlerDecision.ALLOW


async def run_program(config: MitmConfig, *command: str) -> list[str]:
    listing = List()
    async with MitmProxyBuilder(config, listing).build() as handle:
        environment = await handle.client_environment()
        await asyncio.to_thread(subprocess.run, command, env=os.environ | environment, check=True)
    return listing.urls


if __name__ == "__main__":
    config = MitmConfig(bind="127.0.0.1:0")
    config.interception.destinations.append(sys.argv[1])
    print("\n".join(asyncio.run(run_program(config, *sys.argv[2:]))))
