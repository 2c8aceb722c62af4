"""The variables that make programs trust the CA: which, for whom, and what becomes of those that are set already."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from soth_mitm.tls.bundle import TrustFiles, trust_files
from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.ca_formats import to_java_truststore
from soth_mitm.tls.environment import DIRECT_HOSTS, RUNTIMES, client_environment, direct_hosts, runtimes_of

FILES = TrustFiles(Path("/s/ca.pem"), Path("/s/ca-bundle.pem"), Path("/s/ca-truststore.p12"))
PROXY = "http://127.0.0.1:8080"


def made(**options: object) -> dict[str, str]:
    return client_environment(FILES, PROXY, platform="linux", **({"environ": {}} | options))  # type: ignore[arg-type]


def test_everything_that_names_a_file_names_the_bundle() -> None:
    environment = made()
    assert environment == {
        "HTTPS_PROXY": PROXY,
        "HTTP_PROXY": PROXY,
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "https_proxy": PROXY,
        "http_proxy": PROXY,
        "no_proxy": "localhost,127.0.0.1,::1",
        "SSL_CERT_FILE": "/s/ca-bundle.pem",
        "CURL_CA_BUNDLE": "/s/ca-bundle.pem",
        "REQUESTS_CA_BUNDLE": "/s/ca-bundle.pem",
        "PIP_CERT": "/s/ca-bundle.pem",
        "NODE_EXTRA_CA_CERTS": "/s/ca-bundle.pem",
        "NODE_USE_ENV_PROXY": "1",
        "NPM_CONFIG_CAFILE": "/s/ca-bundle.pem",
        "YARN_HTTPS_CA_FILE_PATH": "/s/ca-bundle.pem",
        "YARN_HTTPS_PROXY": PROXY,
        "YARN_HTTP_PROXY": PROXY,
        "DENO_CERT": "/s/ca-bundle.pem",
        "GIT_SSL_CAINFO": "/s/ca-bundle.pem",
        "JAVA_TOOL_OPTIONS": environment["JAVA_TOOL_OPTIONS"],
        "CARGO_HTTP_CAINFO": "/s/ca-bundle.pem",
        "PERL_LWP_SSL_CA_FILE": "/s/ca-bundle.pem",
        "COMPOSER_CAFILE": "/s/ca-bundle.pem",
        "HEX_CACERTS_PATH": "/s/ca-bundle.pem",
        "BUNDLE_SSL_CA_CERT": "/s/ca-bundle.pem",
        "AWS_CA_BUNDLE": "/s/ca-bundle.pem",
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE": "/s/ca-bundle.pem",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "/s/ca-bundle.pem",
        "NIX_SSL_CERT_FILE": "/s/ca-bundle.pem",
    }
    assert environment["JAVA_TOOL_OPTIONS"].split() == [
        "-Djavax.net.ssl.trustStore=/s/ca-truststore.p12",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        "-Djavax.net.ssl.trustStorePassword=changeit",
        "-Dhttps.proxyHost=127.0.0.1",
        "-Dhttps.proxyPort=8080",
        "-Dhttp.proxyHost=127.0.0.1",
        "-Dhttp.proxyPort=8080",
        "-Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1]",
    ]


def test_each_variable_stands_with_one_runtime() -> None:
    environment = made()
    grouped = runtimes_of(environment)
    assert {name: value for variables in grouped.values() for name, value in variables.items()} == environment
    assert sum(len(variables) for variables in grouped.values()) == len(environment)
    assert all(grouped[runtime] for runtime in RUNTIMES)


def test_windows_has_no_second_case() -> None:
    environment = client_environment(FILES, PROXY, environ={}, platform="win32")
    assert len({name.upper() for name in environment}) == len(environment)
    assert {"HTTPS_PROXY", "NO_PROXY"} <= environment.keys()


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_hosts_that_were_direct_stay_direct(name: str) -> None:
    environment = made(environ={name: ".corp.example, localhost ,fe80::1"}, direct=("localhost", "db.example"))
    assert environment["NO_PROXY"] == environment["no_proxy"] == ".corp.example,localhost,fe80::1,db.example"
    assert "-Dhttp.nonProxyHosts=*.corp.example|localhost|[fe80::1]|db.example" in environment["JAVA_TOOL_OPTIONS"].split()


def test_what_is_to_be_intercepted_is_not_reached_without_the_proxy() -> None:
    assert direct_hosts([]) == list(DIRECT_HOSTS)
    assert direct_hosts(["*:*", "*.example.com:443"]) == list(DIRECT_HOSTS)
    assert direct_hosts(["LOCALHOST:8443"]) == ["127.0.0.1", "::1"]
    assert direct_hosts(["127.0.0.1:*", "[0:0::1]:443"]) == ["localhost"]


def test_making_it_twice_changes_nothing() -> None:
    once = made(environ={"JAVA_TOOL_OPTIONS": "-Xmx1g", "NO_PROXY": "a.example"})
    assert made(environ=once) == once


def test_options_of_java_that_are_not_ours_are_kept() -> None:
    already = """-Xmx1g -Da='b c' -Dhttps.proxyHost=old "-Djavax.net.ssl.trustStore=/x y" -Dd="e  f" """
    options = made(environ={"JAVA_TOOL_OPTIONS": already})["JAVA_TOOL_OPTIONS"]
    assert options.startswith("""-Xmx1g -Da='b c' -Dd="e  f" -Djavax.net.ssl.trustStore=/s/""")
    assert options.count("https.proxyHost") == options.count("trustStore=") == 1


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:1", "127.0.0.1", "1"),
        ("http://[::1]:8080/", "::1", "8080"),
        ("http://proxy.example:3128", "proxy.example", "3128"),
    ],
)
def test_the_url_in_parts_for_java(url: str, host: str, port: str) -> None:
    options = client_environment(FILES, url, environ={}, platform="linux")["JAVA_TOOL_OPTIONS"].split()
    assert {f"-Dhttps.proxyHost={host}", f"-Dhttps.proxyPort={port}", f"-Dhttp.proxyHost={host}"} <= set(options)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "https://a:1", "http://a", "http://u:p@a:1", "http://a:1/x", "http://::1:80"])
def test_what_is_no_proxy_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write http://host:port"):
        client_environment(FILES, url, environ={})


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
@pytest.mark.parametrize("directory", ["plain", "with a space", "with 'one' quote", 'with "two" quotes'])
def test_a_jvm_understands_its_options(tmp_path: Path, directory: str) -> None:
    cert_path = tmp_path / directory / "ca.pem"
    cert_path.parent.mkdir()
    files = trust_files(cert_path)
    files.java_truststore.write_bytes(to_java_truststore([generate_ca().certificate]))
    environment = client_environment(files, PROXY, environ={"JAVA_TOOL_OPTIONS": "-Da='b c'"})
    done = subprocess.run(
        ("java", "-XshowSettings:properties", "-version"),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    properties = {line.strip() for line in done.stderr.splitlines()}
    assert {
        f"javax.net.ssl.trustStore = {files.java_truststore}",
        "a = b c",
        "http.nonProxyHosts = localhost|127.0.0.1|[::1]",
    } <= properties
