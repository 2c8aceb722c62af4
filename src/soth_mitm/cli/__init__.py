"""The command line. It uses the public API only, and needs the extra `cli`: click and rich."""
