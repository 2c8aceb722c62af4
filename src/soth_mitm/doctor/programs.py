"""The programs that the doctor knows: how each is asked for its version, how it is made to fetch a URL, and what helps if it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from soth_mitm.doctor.origin import DOMAIN, WHEEL


@dataclass(frozen=True, slots=True)
class Trial:
    """What a program is given."""

    slug: str
    """The first label of the host that is this program's own, by which the proxy knows whose request it sees."""
    port: int
    proxy: str
    """`host:port` of the proxy, for programs that read no variable."""
    directory: Path
    """An empty directory, which is the program's working directory."""

    @property
    def host(self) -> str:
        return f"{self.slug}.{DOMAIN}"

    @property
    def origin(self) -> str:
        """The URL without a path."""
        return f"https://{self.host}:{self.port}"


Argv = tuple[str, ...]
Arguments = Callable[[Trial], Argv]


@dataclass(frozen=True, slots=True)
class Program:
    """One way of one program to fetch something."""

    name: str
    slug: str
    executable: str
    version: Argv
    arguments: Arguments
    requires: Argv = ()
    """Arguments with which the executable must end well, or there is nothing to try."""
    missing: str = ""
    """What is not there when `requires` fails."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Files that are put into the working directory."""
    build: Argv = ()
    """Arguments that make `built` out of `sources`; that is run then, in place of the executable."""
    built: str = ""
    stdin: Callable[[Trial], str] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those of `ca env`, none of which is about trust or the proxy."""
    by_hand: Arguments | None = None
    """The same with a CONNECT of its own, for a program that may not look at the proxy's variables: does it trust the CA at least?"""
    if_it_ignores_the_proxy: str = "look for its own setting of a proxy"
    if_it_distrusts: str = "look for its own setting of a CA file, or try: soth-mitm ca install"


_PYTHON = "python" if sys.platform == "win32" else "python3"
_FETCH = "import sys; url = sys.argv[1]; "
_URLLIB = f"{_FETCH}import urllib.request as u; u.urlopen(url, timeout=20).read()"
_REQUESTS = f"{_FETCH}import requests; requests.get(url, timeout=20).raise_for_status()"
_HTTPX = f"{_FETCH}import httpx; httpx.get(url, timeout=20).raise_for_status()"
_AIOHTTP = f"""{_FETCH}
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession(trust_env=True, timeout=aiohttp.ClientTimeout(20)) as session:
        async with session.get(url) as answer:
            answer.raise_for_status()
            await answer.read()
asyncio.run(main())
"""
_NODE = """
const url = process.argv[1];
const failed = (error) => { console.error(error.cause ?? error); process.exit(1); };
if (globalThis.fetch) fetch(url).then((answer) => answer.text()).catch(failed);
else require("node:https").get(url, (answer) => answer.resume()).on("error", failed);
"""
_NODE_BY_HAND = """
const url = new URL(process.argv[1]), proxy = new URL(process.env.HTTPS_PROXY);
const failed = (error) => { console.error(error); process.exit(1); };
const path = `${url.hostname}:${url.port}`;
require("node:http").request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path, headers: { Host: path } })
  .on("connect", (_, socket) => {
    const secured = require("node:tls").connect({ socket, servername: url.hostname }, () => {
      secured.write(`GET / HTTP/1.1\\r\\nHost: ${url.host}\\r\\nConnection: close\\r\\n\\r\\n`);
    });
    secured.on("error", failed).on("end", () => process.exit(0)).resume();
  }).on("error", failed).end();
"""
_DENO = "await (await fetch(Deno.args[0])).text();\n"
_GO = """package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	client := http.Client{Timeout: 20 * time.Second}
	answer, err := client.Get(os.Args[1])
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""
_JAVA = """
import java.net.URI;
import java.net.http.*;
import java.time.Duration;

class Doctor {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(20)).build();
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).timeout(Duration.ofSeconds(20)).build();
        client.send(request, HttpResponse.BodyHandlers.discarding());
    }
}
"""


def _python(name: str, slug: str, script: str, package: str = "", *, distrusts: str = "") -> Program:
    return Program(
        name,
        slug,
        _PYTHON,
        ("-c", f"import {package}; print({package}.__version__)") if package else ("--version",),
        lambda trial: ("-c", script, f"{trial.origin}/"),
        requires=("-c", f"import {package}") if package else (),
        missing=f"the package {package}" if package else "",
        if_it_distrusts=distrusts or "set SSL_CERT_FILE for it, or give its SSLContext the bundle",
        if_it_ignores_the_proxy="code that builds its own session must read the environment (trust_env)",
    )


_ASK_WITH_HTTPS = "export the variables in the shell that starts it"
PROGRAMS = (
    Program(
        "curl",
        "curl",
        "curl",
        ("--version",),
        lambda trial: ("-sS", "--fail", "--max-time", "20", f"{trial.origin}/"),
        if_it_ignores_the_proxy="look for `noproxy` or `proxy` in ~/.curlrc",
        if_it_distrusts="a curl on Schannel or Secure Transport asks the system: soth-mitm ca install",
    ),
    Program(
        "wget",
        "wget",
        "wget",
        ("--version",),
        lambda trial: ("-nv", "-O", "answer", "--tries=1", "--timeout=20", f"{trial.origin}/"),
        if_it_ignores_the_proxy="look for `use_proxy` in ~/.wgetrc",
        if_it_distrusts="a wget on GnuTLS reads no variable: soth-mitm ca install, or wget --ca-certificate=$SSL_CERT_FILE",
    ),
    Program(
        "openssl",
        "openssl",
        "openssl",
        ("version",),
        lambda trial: (
            *("s_client", "-quiet", "-verify_return_error", "-proxy", trial.proxy, "-connect", f"{trial.host}:{trial.port}"),
            *("-servername", trial.host, "-verify_hostname", trial.host),
        ),
        stdin=lambda trial: f"GET / HTTP/1.1\r\nHost: {trial.host}:{trial.port}\r\nConnection: close\r\n\r\n",
        if_it_distrusts="SSL_CERT_FILE is not read by every build; give it -CAfile $SSL_CERT_FILE",
    ),
    _python("Python urllib", "urllib", _URLLIB),
    _python(
        "Python requests", "requests", _REQUESTS, "requests", distrusts="set REQUESTS_CA_BUNDLE for it; code with verify=… does not read it"
    ),
    _python("Python httpx", "httpx", _HTTPX, "httpx"),
    _python("Python aiohttp", "aiohttp", _AIOHTTP, "aiohttp"),
    Program(
        "pip",
        "pip",
        _PYTHON,
        ("-m", "pip", "--version"),
        lambda trial: (
            *("-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "0", "--timeout", "20", "download", "--no-deps"),
            *("--no-cache-dir", "--no-index", "--dest", str(trial.directory / "wheels"), f"{trial.origin}/{WHEEL}"),
        ),
        requires=("-m", "pip", "--version"),
        missing="the package pip",
        if_it_distrusts="look for `cert` in `pip config list`",
        if_it_ignores_the_proxy="look for `proxy` in `pip config list`",
    ),
    Program(
        "Node.js",
        "node",
        "node",
        ("--version",),
        lambda trial: ("-e", _NODE, f"{trial.origin}/"),
        by_hand=lambda trial: ("-e", _NODE_BY_HAND, f"{trial.origin}/"),
        if_it_ignores_the_proxy="Node.js reads HTTPS_PROXY from 22.21 and 24.5 on; before, give the client a proxy agent",
        if_it_distrusts="NODE_EXTRA_CA_CERTS is read when the process starts, and not where code sets `ca`",
    ),
    Program(
        "npm",
        "npm",
        "npm",
        ("--version",),
        lambda trial: ("ping", "--registry", f"{trial.origin}/", "--fetch-retries", "0", "--fetch-timeout", "20000"),
        variables={"NPM_CONFIG_UPDATE_NOTIFIER": "false"},
        if_it_distrusts="look for `cafile`, `ca` and `strict-ssl` in `npm config list -l`",
        if_it_ignores_the_proxy="look for `https-proxy` and `noproxy` in `npm config list -l`",
    ),
    Program(
        "Deno",
        "deno",
        "deno",
        ("--version",),
        lambda trial: ("run", "--quiet", "--no-prompt", "--allow-net", "doctor.js", f"{trial.origin}/"),
        sources={"doctor.js": _DENO},
        if_it_distrusts="set DENO_CERT for it",
    ),
    Program(
        "git",
        "git",
        "git",
        ("--version",),
        lambda trial: ("ls-remote", f"{trial.origin}/repository.git"),
        variables={"GIT_TERMINAL_PROMPT": "0"},
        if_it_distrusts="look for `http.sslCAInfo` and `http.sslBackend` in `git config --list --show-origin`",
        if_it_ignores_the_proxy="look for `http.proxy` in `git config --list --show-origin`",
    ),
    Program(
        "Go",
        "go",
        "go",
        ("version",),
        lambda trial: (f"{trial.origin}/",),
        sources={"doctor.go": _GO},
        build=("build", "-o", "doctor-go.exe", "doctor.go"),
        built="doctor-go.exe",
        variables={"GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"},
        if_it_distrusts="on macOS and Windows Go before 1.27 asks the system: soth-mitm ca install",
        if_it_ignores_the_proxy=f"{_ASK_WITH_HTTPS}; code with a Transport of its own needs Proxy: http.ProxyFromEnvironment",
    ),
    Program(
        "Java",
        "java",
        "java",
        ("-version",),
        lambda trial: ("-Xshare:auto", "-XX:TieredStopAtLevel=1", "Doctor.java", f"{trial.origin}/"),
        requires=("--describe-module", "jdk.compiler"),
        missing="the compiler (a JDK of Java 11 or later)",
        sources={"Doctor.java": _JAVA},
        if_it_distrusts="JAVA_TOOL_OPTIONS must name the truststore; a program's own -Djavax.net.ssl.trustStore goes before it",
        if_it_ignores_the_proxy="code with a ProxySelector of its own does not see https.proxyHost",
    ),
    Program(
        "cargo",
        "cargo",
        "cargo",
        ("--version",),
        lambda trial: ("search", "soth-mitm", "--index", f"sparse+{trial.origin}/index/", "--limit", "1"),
        if_it_distrusts="look for http.cainfo in ~/.cargo/config.toml",
        if_it_ignores_the_proxy=(
            "look for CARGO_HTTP_PROXY, for http.proxy in ~/.cargo/config.toml and in `git config --list`, which go before HTTPS_PROXY, "
            "and for net.offline"
        ),
    ),
    Program(
        "AWS CLI",
        "aws",
        "aws",
        ("--version",),
        lambda trial: (
            *("s3api", "list-buckets", "--endpoint-url", trial.origin, "--no-sign-request", "--region", "us-east-1"),
            *("--cli-connect-timeout", "20", "--cli-read-timeout", "20"),
        ),
        variables={"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1", "AWS_PAGER": ""},
        if_it_distrusts="look for `ca_bundle` in ~/.aws/config",
    ),
)
