"""Formats of bytes: heads and fields, content codings, framers of streams, the ClientHello."""
