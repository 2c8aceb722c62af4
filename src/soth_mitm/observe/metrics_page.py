"""The page docs/metrics.md: how to read what a proxy tells of itself, and the table of all metrics, made from `families`."""

from collections.abc import Iterator

from soth_mitm.observe.families import FAMILIES, PREFIX, Family

_OPENING = f"""\
# Metrics and health

<!-- Made by soth_mitm.observe.metrics_page from soth_mitm.observe.families; change the text there. -->

`prometheus_bind` is an address at which the proxy tells of itself over HTTP. It needs one more package, which the extra `metrics` of
this one brings:

```sh
pip install prometheus-client
SOTH_MITM__PROMETHEUS_BIND=127.0.0.1:9464 soth-mitm run --destination 'example.com:443'
```

```sh
curl -s  http://127.0.0.1:9464/metrics
curl -s  http://127.0.0.1:9464/metrics -H 'Accept: application/openmetrics-text'
curl -si http://127.0.0.1:9464/healthz
curl -si http://127.0.0.1:9464/readyz
curl -s  http://127.0.0.1:9464/status
```

| path | answer |
| --- | --- |
| `/metrics` | 200 with the metrics below: Prometheus' text format, or OpenMetrics where `Accept` prefers it |
| `/healthz` | 200 when the event loop of the proxy has answered within 5 seconds, else 503 |
| `/readyz` | 200 while the proxy takes connections; 503 with the reason from the beginning of a shutdown to its end |
| `/status` | JSON: version, pid, state, uptime, addresses, connections, requests, digest of the configuration, CA |

In a program, `handle.metrics()` returns the same figures under the names of the last column, and needs no package. `handle.status_url`
is the address, which one needs to know if the port is 0.

- **Who can read it.** There is neither a password nor TLS. Another address than a loopback one needs `prometheus_open_to_network`
  beside it. At a loopback address `Host` has to be an address or `localhost`: a web site could have its own name lead here otherwise.
- **No client of the proxy reaches it**, by CONNECT, by an absolute URL, through a tunnel or by a redirect of a handler, by whatever
  name or spelling of the address. It is answered 403.
- **What it costs.** A scrape takes a few milliseconds of the interpreter in a thread of its own, during which the traffic may wait; the
  proxy's own loop is asked for the counters, which takes a tenth of a millisecond. Nothing is done between two scrapes. The loop may be
  held up, by a hook that does not return: then `/metrics`, `/healthz` and `/status` answer 503, and `/readyz` what it is.
- **Bounds.** One request for each connection, 16 connections, heads of 8 KiB, 10 seconds for a request and its answer.

## The metrics

Each name begins with `{PREFIX}`. Counters count since the start of the proxy, and a reload keeps them. No value of a label is a text that
a client or a server chose. Beside these there are `{PREFIX}build_info` with the labels `version`, `python` and `openssl`, and, on Linux,
the `process_*` metrics of the Prometheus client library.
"""

_CLOSING = """
## What is not counted

Of the sixteen counters of the contract two are not exported, since nothing here does what they count:
`process_cache_connection_hit_count` (the process of a connection is found anew each time) and `closed_flow_id_eviction_count` (no list of
closed flows is kept). `stale_flow_reap_count` has no counterpart yet: connections that an idle deadline ends are not counted apart.

Nothing counts a store, since there is none yet; nor model calls, which `soth_mitm.llm` reports one by one
([llm.md](llm.md)). There is one worker, so that no metric has a label for it.
"""


def metrics_markdown() -> str:
    """Return the page docs/metrics.md."""
    parts = [_OPENING]
    for title, families in FAMILIES.items():
        parts += [f"\n### {title}\n", *_table(families)]
    return "\n".join(parts) + "\n" + _CLOSING


def _table(families: tuple[Family, ...]) -> Iterator[str]:
    yield "| name | type | labels | meaning | `handle.metrics()` |"
    yield "| --- | --- | --- | --- | --- |"
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        fields = ", ".join(f"`{field}`" for field in family.fields)
        yield f"| `{family.name}` | {family.kind} | {labels} | {family.meaning} | {fields} |"
