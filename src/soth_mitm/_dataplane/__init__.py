"""The data plane: everything that runs per read, per message, per frame.

One concept, one extension module, joined by ``cimport``. Nothing here imports asyncio, knows a configuration file or a certificate; what
it needs from the floors above (a loop's ``call_later``, a dialler, a handler's methods) it is handed. Each module may use only what stands
above it:

=============  =====================================================================================
party          what an endpoint, a pool, a deadline and a hook call back
budget         how many bytes are held, and who waits because they are too many
view           borrowed bytes: pointer and length
scan           declarations of the C scanners in ``ext/``
ledger         counts of what is lent and open, in debug builds
buffer         the memory of one loop: scratch, blocks, windows, read buffers
head           message heads: bytes to offsets and facts
body           where a message ends
kept           what is kept of bodies: copies, and requests that are collected before the decision
writer         heads as they leave
messages       what a handler is shown
decode         content codings, for handlers only
frames         the contract of the framers
sse, ndjson    event streams and line streams
deadline       many timers, one loop timer for each duration
tls_pump       one TLS engine over memory: ciphertext in, plaintext out, and back
endpoint       one socket: the buffered protocol, reading, writing, back-pressure
hooks          calling the handler; a coroutine that does not suspend costs no task
plane          a configuration snapshot as the data plane needs it; counters
intake         an endpoint as the control plane sees it before it is handed over
pool           upstream connections of one origin
relay          tunnels
observer       copies and frames for the handler, off the bytes that are relayed
responding     HTTP/1: the response's way on one client connection
exchange       and requests, one after another
=============  =====================================================================================

A connection, its buffers and its flows belong to one loop and one thread; there are no locks and there is no module state.
"""
