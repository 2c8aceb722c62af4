"""Connections to origins: idle ones, those in use, and who waits."""
