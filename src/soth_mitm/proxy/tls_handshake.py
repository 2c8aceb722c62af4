"""A TLS handshake with either peer, and what its failure is called."""

from collections.abc import Callable

from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm.errors import Side, TlsFailedError
from soth_mitm.proxy.detached import detached
from soth_mitm.tls.failures import advise, classify, describe

# RFC 8446 section 6
ALERT_UNEXPECTED_MESSAGE, ALERT_DECODE_ERROR, ALERT_PROTOCOL_VERSION, ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME = 10, 50, 70, 80, 112


async def shake_hands(connection: AwaitableEndpoint, deadline: DeadlineQueue, start: Callable[[], None], peer: Side) -> None:
    """Call `start`, which starts the handshake, and wait until it is done.

    Raises what it failed with: `TimeoutError` after the duration of `deadline`, else an `OSError` (of which `ssl.SSLError` is one) or a
    `ValueError`.
    """
    with connection.within(deadline):
        start()
        while not connection.is_secured:
            if connection.tls_error is not None:
                raise connection.tls_error
            if connection.over:
                raise connection.error or ConnectionResetError(f"the {peer} closed the connection during the TLS handshake")
            await connection.changed()


def tls_failure(error: Exception, peer: Side, where: str, late: str, *, certificate_refused: bool = False) -> TlsFailedError:
    """Return what to tell of a handshake that failed with `error`, which becomes its cause.

    `where` names the other end. `late` is the detail of a handshake that was not done in time.
    """
    is_late = isinstance(error, TimeoutError)
    detail = late if is_late else describe(error)
    advice = advise(error) if peer == "upstream" else ""
    failure = TlsFailedError(
        f"the TLS handshake with {where} failed: {detail}" + (f"; {advice}" if advice else ""),
        side=peer,
        reason=classify(error, peer),
        detail=detail,
        status=504 if is_late and peer == "upstream" else 502,
        certificate_refused=certificate_refused,
    )
    failure.__cause__ = detached(error)
    return failure
