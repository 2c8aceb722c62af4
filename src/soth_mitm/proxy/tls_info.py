"""What TLS handshakes showed, on both sides of a connection."""

import hashlib
import ssl

import msgspec

from soth_mitm._dataplane.transport.tls_engine import TlsEngine
from soth_mitm.connection import ConnectionMeta, TlsInfo
from soth_mitm.tls.client_hello import ClientHello
from soth_mitm.tls.fingerprint import ja3, ja4
from soth_mitm.tls.names import alternative_names


class UpstreamTlsInfo(msgspec.Struct, frozen=True):
    """What a TLS handshake with an upstream showed."""

    version: str | None
    cipher: str | None
    alpn: str | None
    resumed: bool
    certificate_sha256: str | None
    names: tuple[str, ...]
    extended_connect: bool = False
    """Whether its SETTINGS allow other protocols on a stream (RFC 8441); known when an HTTP/2 connection has begun."""


def upstream_tls_info(pump: TlsEngine) -> UpstreamTlsInfo:
    """Return what the finished handshake of `pump`, our client side, showed; a resumed one shows the certificate of the first."""
    engine = pump.ssl_object
    der = engine.getpeercert(binary_form=True)
    # those of a certificate that was not verified are only a claim
    verified = engine.context.verify_mode is not ssl.CERT_NONE
    version, cipher, alpn, resumed = pump.agreed()
    return UpstreamTlsInfo(
        version=version,
        cipher=cipher,
        alpn=alpn,
        resumed=resumed,
        certificate_sha256=hashlib.sha256(der).hexdigest() if der else None,
        # not by getpeercert(), which raises if any name, of whatever kind and in whatever extension, is not UTF-8
        names=alternative_names(der) if der and verified else (),
    )


def tls_info(hello: ClientHello, pump: TlsEngine, upstream: UpstreamTlsInfo | None, *, fingerprint: bool) -> TlsInfo:
    """Return what the client's hello and the finished handshake of `pump`, our server side, showed, and what is known of the upstream."""
    version, cipher, alpn, resumed = pump.agreed()
    of_client = (hello.sni, alpn, version, cipher, resumed, ja3(hello)[1] if fingerprint else None, ja4(hello) if fingerprint else None)
    if upstream is None:
        return TlsInfo(*of_client)
    return TlsInfo(*of_client, upstream.version, upstream.cipher, upstream.alpn, upstream.resumed, upstream.certificate_sha256)


def with_upstream_info(meta: ConnectionMeta, info: UpstreamTlsInfo | None) -> ConnectionMeta:
    """Return `meta` with what TLS agreed on with the upstream connection that is used now."""
    known = msgspec.structs.replace(
        meta.tls_info or TlsInfo(),
        upstream_version=info.version if info else None,
        upstream_cipher=info.cipher if info else None,
        upstream_proto=info.alpn if info else None,
        upstream_resumed=info.resumed if info else None,
        upstream_certificate_sha256=info.certificate_sha256 if info else None,
    )
    return meta.replace(tls_info=known)
