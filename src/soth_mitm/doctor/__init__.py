"""Trying programs of this machine against a server of our own, through a proxy of our own."""
