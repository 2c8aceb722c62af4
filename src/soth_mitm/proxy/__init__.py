"""Sockets: the listener, each client connection's set-up, dialling, and the proxy's life."""
