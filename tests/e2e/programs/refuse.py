"""Asks for a URL through a proxy and refuses the certificate: `python refuse.py PROXY URL CA HOW`."""

import asyncio
import sys
import urllib.request

import aiohttp
import urllib3

proxy, target, ca, how = sys.argv[1:]
PINNED = "00" * 32


async def with_aiohttp(pin: bool) -> None:
    check = aiohttp.Fingerprint(bytes.fromhex(PINNED)) if pin else True
    async with aiohttp.ClientSession() as session, session.get(target, proxy=proxy, ssl=check) as response:
        await response.read()


ways = {
    "urllib": lambda: urllib.request.build_opener(urllib.request.ProxyHandler({"https": proxy})).open(target),
    "aiohttp": lambda: asyncio.run(with_aiohttp(False)),
    "aiohttp pinned": lambda: asyncio.run(with_aiohttp(True)),
    "urllib3 pinned": lambda: urllib3.ProxyManager(proxy, ca_certs=ca, assert_fingerprint=PINNED, retries=False).request("GET", target),
}
try:
    ways[how]()
except (OSError, aiohttp.ClientError, urllib3.exceptions.HTTPError) as refused:
    sys.stdout.write(f"{refused}\n")
else:
    sys.exit(1)
