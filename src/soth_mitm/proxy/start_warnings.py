"""What a configuration is warned of when it takes effect: what it exposes, and what it sets without effect."""

from soth_mitm.config import MitmConfig
from soth_mitm.config.effect import without_effect
from soth_mitm.destinations import parse_redirect
from soth_mitm.tls.hardening import KEY_LOG, key_log_path


def start_warnings(config: MitmConfig) -> list[str]:
    """Return a sentence for each."""
    upstream = config.upstream
    sentences = []
    if not upstream.verify_upstream_tls:
        sentences.append(
            "upstream.verify_upstream_tls is false: anybody between this proxy and an upstream can read and change the traffic"
        )
    if upstream.insecure_destinations:
        listed = ", ".join(upstream.insecure_destinations)
        sentences.append(
            f"upstream.insecure_destinations: no certificate is verified of {listed}; anybody between this proxy and them can read and "
            "change the traffic"
        )
    exposed = [str(pattern) for pattern, there in map(parse_redirect, upstream.connect_to) if there.is_exposed]
    if exposed:
        sentences.append(
            f"upstream.connect_to: requests to {', '.join(exposed)} may cross a network in clear (http://): anybody on the way can "
            "read and change them"
        )
    if key_log_path() is not None:
        sentences.append(f"{KEY_LOG} is set: the keys of all TLS sessions are written to {key_log_path()}")
    return sentences + without_effect(config)
