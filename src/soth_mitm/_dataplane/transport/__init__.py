"""One socket: reading and writing, TLS, and how it is closed."""
