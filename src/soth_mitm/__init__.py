"""An embeddable intercepting HTTPS proxy: policy, live streams, native speed.

>>> config = MitmConfig()
>>> config.interception.destinations.append("api.example.com:443")
>>> proxy = MitmProxyBuilder(config, InterceptHandler()).build()
"""

from importlib.metadata import version as _version

from soth_mitm._dataplane.http.messages import FrameKind, RawRequest, RawResponse, StreamChunk
from soth_mitm._dataplane.wire.headers import Headers
from soth_mitm.chain import Chain
from soth_mitm.chunk_decision import ChunkDecision, SseEvent
from soth_mitm.config import MitmConfig
from soth_mitm.config.credential import Credential
from soth_mitm.connect_decision import ConnectDecision, ConnectTarget
from soth_mitm.connection import ConnectionMeta, ProcessInfo, SocketFamily, TcpV4, TcpV6, TlsInfo, UnixDomain
from soth_mitm.decision import HandlerDecision, Upstream
from soth_mitm.errors import (
    BindError,
    CaError,
    CaMaterialError,
    CaOperationError,
    CaPermissionError,
    CaUnsupportedError,
    ConnectFailedError,
    DecisionError,
    DecisionTypeError,
    DecisionValueError,
    EventSinkError,
    InvalidConfigError,
    MitmError,
    ShutdownTimeoutError,
    StageTimeoutError,
    TlsFailedError,
    WireError,
)
from soth_mitm.handler import InterceptHandler
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.proxy.handle import MitmProxyHandle
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.proxy.proxy import MitmProxy, MitmProxyBuilder
from soth_mitm.proxy.threaded import ThreadedHandle
from soth_mitm.response_decision import ResponseDecision
from soth_mitm.secret import CredentialSource, Secret
from soth_mitm.tls.bundle import TrustFiles, write_trust_files
from soth_mitm.tls.bypass import TlsBypass
from soth_mitm.tls.ca import CertificateAuthority, generate_ca, load_ca
from soth_mitm.tls.ca_files import load_ca_from_files
from soth_mitm.tls.ca_formats import load_ca_from_pkcs12
from soth_mitm.tls.environment import client_environment
from soth_mitm.tls.trust.stores import TrustReport, ca_trust_status, install_ca_system_trust, is_ca_trusted, uninstall_ca_system_trust

__version__ = _version("soth-mitm")

__all__ = [
    "BindError",
    "CaError",
    "CaMaterialError",
    "CaOperationError",
    "CaPermissionError",
    "CaUnsupportedError",
    "CertificateAuthority",
    "Chain",
    "ChunkDecision",
    "ConnectDecision",
    "ConnectFailedError",
    "ConnectTarget",
    "ConnectionMeta",
    "Credential",
    "CredentialSource",
    "DecisionError",
    "DecisionTypeError",
    "DecisionValueError",
    "EventSinkError",
    "FrameKind",
    "HandlerDecision",
    "Headers",
    "InterceptHandler",
    "InvalidConfigError",
    "MitmConfig",
    "MitmError",
    "MitmProxy",
    "MitmProxyBuilder",
    "MitmProxyHandle",
    "ProcessInfo",
    "ProxyMetrics",
    "RawRequest",
    "RawResponse",
    "ResponseDecision",
    "Secret",
    "ShutdownTimeoutError",
    "SocketFamily",
    "SseEvent",
    "StageTimeoutError",
    "StreamChunk",
    "TcpV4",
    "TcpV6",
    "ThreadedHandle",
    "TlsBypass",
    "TlsFailedError",
    "TlsInfo",
    "TrustFiles",
    "TrustReport",
    "UnixDomain",
    "Upstream",
    "WireError",
    "ca_trust_status",
    "client_environment",
    "generate_ca",
    "install_ca_system_trust",
    "is_ca_trusted",
    "load_ca",
    "load_ca_from_files",
    "load_ca_from_pkcs12",
    "new_event_loop",
    "uninstall_ca_system_trust",
    "write_trust_files",
]
