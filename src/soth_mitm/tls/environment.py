"""The environment variables that send a program through the proxy and make it trust the CA, runtime by runtime.

Where each fact comes from stands in docs/trust.md. `soth-mitm doctor` tries them with the programs that are there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from soth_mitm.destinations import DestinationPattern
from soth_mitm.tls.bundle import TrustFiles
from soth_mitm.tls.ca_formats import JAVA_PASSWORD

DIRECT_HOSTS = ("localhost", "127.0.0.1", "::1")


def direct_hosts(destinations: Iterable[str]) -> list[str]:
    """Return those of `DIRECT_HOSTS` that no pattern of `destinations` names: what is to be intercepted has to come to the proxy."""
    patterns = [DestinationPattern.parse(text) for text in destinations]
    named = {pattern.host for pattern in patterns if not pattern.is_glob}
    return [host for host in DIRECT_HOSTS if host not in named]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A group of programs and the variables that they read."""

    name: str
    variables: tuple[str, ...]
    note: str = ""
    """What a user must know where the variables are not the whole story."""


RUNTIMES = (
    Runtime(
        "the proxy",
        ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
        "read by nearly every program; curl and wget read http_proxy in lower case only, aiohttp only with trust_env=True",
    ),
    Runtime(
        "Python ssl, httpx, aiohttp; Go; Ruby; .NET; Rust with native roots; everything on OpenSSL",
        ("SSL_CERT_FILE",),
        "Go on macOS and Windows reads it from 1.27 on; before, it asks the system: soth-mitm ca install",
    ),
    Runtime("curl", ("CURL_CA_BUNDLE",), "a curl built on Schannel (Windows) asks the system: soth-mitm ca install"),
    Runtime("Python requests", ("REQUESTS_CA_BUNDLE",)),
    Runtime("pip", ("PIP_CERT",)),
    Runtime(
        "Node.js",
        ("NODE_EXTRA_CA_CERTS", "NODE_USE_ENV_PROXY"),
        "Node.js itself reads HTTPS_PROXY from 22.21 and 24.5 on; before, a client needs a proxy agent",
    ),
    Runtime("npm", ("NPM_CONFIG_CAFILE",)),
    Runtime("Yarn 2 and later", ("YARN_HTTPS_CA_FILE_PATH", "YARN_HTTPS_PROXY", "YARN_HTTP_PROXY")),
    Runtime("Deno", ("DENO_CERT",)),
    Runtime("git", ("GIT_SSL_CAINFO",)),
    Runtime("Java", ("JAVA_TOOL_OPTIONS",), "each JVM says on standard error that it picked them up"),
    Runtime("Rust's cargo", ("CARGO_HTTP_CAINFO",)),
    Runtime("Perl's LWP", ("PERL_LWP_SSL_CA_FILE",)),
    Runtime("PHP's Composer", ("COMPOSER_CAFILE",)),
    Runtime("Elixir's Hex", ("HEX_CACERTS_PATH",)),
    Runtime("Ruby's Bundler", ("BUNDLE_SSL_CA_CERT",)),
    Runtime("AWS CLI and SDKs", ("AWS_CA_BUNDLE",)),
    Runtime("Google Cloud CLI", ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",)),
    Runtime("gRPC (C core, Python, Ruby, PHP)", ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",)),
    Runtime("programs built by Nix", ("NIX_SSL_CERT_FILE",)),
)
_FLAGS = {"NODE_USE_ENV_PROXY": "1"}
_JAVA_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
_PROXY_URL = re.compile(r"http://(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+):(?P<port>\d{1,5})/?")


def client_environment(
    files: TrustFiles,
    proxy_url: str,
    *,
    direct: Iterable[str] = DIRECT_HOSTS,
    environ: Mapping[str, str] | None = None,
    platform: str = sys.platform,
    ca_directory: str | None = None,
) -> dict[str, str]:
    """Return the variables for programs that are to go through the proxy at `proxy_url` (`http://host:port`) and trust its CA.

    `files` must have been written. `direct` are hosts that are reached without the proxy. What `environ` has in NO_PROXY and in
    JAVA_TOOL_OPTIONS is kept. `ca_directory` is where the program finds the files, when that is not where they were written: the path at
    which a container has them. On Windows, where case does not count in names, each variable is there once.
    """
    if _PROXY_URL.fullmatch(proxy_url) is None:
        raise ValueError(f"`{proxy_url}` is not the URL of a proxy; write http://host:port")
    environ = environ or {}
    no_proxy = _direct_hosts(environ, direct)
    proxies = {"HTTPS_PROXY": proxy_url, "HTTP_PROXY": proxy_url, "NO_PROXY": ",".join(no_proxy)}
    if platform != "win32":
        proxies |= {name.lower(): value for name, value in proxies.items()}
    truststore = _seen_at(files.java_truststore, ca_directory)
    special = _FLAGS | {"YARN_HTTPS_PROXY": proxy_url, "YARN_HTTP_PROXY": proxy_url}
    special["JAVA_TOOL_OPTIONS"] = _java_options(truststore, proxy_url, no_proxy, environ.get("JAVA_TOOL_OPTIONS", ""))
    bundle = _seen_at(files.bundle, ca_directory)
    trust = {name: special.get(name, bundle) for runtime in RUNTIMES[1:] for name in runtime.variables}
    return proxies | trust


def runtimes_of(environment: Mapping[str, str]) -> dict[Runtime, dict[str, str]]:
    """Return the variables of `client_environment` by the programs that read them."""
    return {runtime: {name: environment[name] for name in runtime.variables if name in environment} for runtime in RUNTIMES}


def _direct_hosts(environ: Mapping[str, str], direct: Iterable[str]) -> list[str]:
    already = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return list(dict.fromkeys([*(host.strip() for host in already.split(",") if host.strip()), *direct]))


def _seen_at(path: Path, directory: str | None) -> str:
    return str(path) if directory is None else f"{directory.rstrip('/')}/{path.name}"


def _java_options(truststore: str, proxy_url: str, no_proxy: Iterable[str], already: str) -> str:
    match = _PROXY_URL.fullmatch(proxy_url)
    assert match is not None
    host, port = match["host"].strip("[]"), match["port"]
    options = {
        "javax.net.ssl.trustStore": _quoted(truststore),
        "javax.net.ssl.trustStoreType": "PKCS12",
        "javax.net.ssl.trustStorePassword": JAVA_PASSWORD,
        "https.proxyHost": host,
        "https.proxyPort": port,
        "http.proxyHost": host,
        "http.proxyPort": port,
        "http.nonProxyHosts": "|".join(_java_host(entry) for entry in no_proxy),
    }
    # of what is there already, all but what we set: a JVM takes the last of two
    kept = [word for word in _JAVA_WORD.findall(already) if word.strip("\"'").removeprefix("-D").partition("=")[0] not in options]
    return " ".join([*kept, *(f"-D{name}={value}" for name, value in options.items())])


def _java_host(entry: str) -> str:
    """Return an entry of NO_PROXY as Java writes it: addresses of IPv6 in brackets, a domain with everything below it as a glob."""
    if entry.count(":") > 1 and not entry.startswith("["):
        return f"[{entry}]"
    return f"*{entry}" if entry.startswith(".") else entry


def _quoted(text: str) -> str:
    # the JVM splits at white space and honours quotes, but knows no escapes
    if not re.search(r"[\s\"']", text):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'
