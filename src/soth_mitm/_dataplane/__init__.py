"""The data plane: everything that runs per read, per message, per frame.

One concept, one extension module, joined by ``cimport``. Nothing here imports asyncio, knows a configuration file or a certificate; what
it needs from the floors above (a loop's ``call_later``, a dialler, a handler's methods) it is handed. ``docs/architecture.md`` has the map.

A connection, its buffers and its exchanges belong to one loop and one thread; there are no locks and there is no module state.
"""
