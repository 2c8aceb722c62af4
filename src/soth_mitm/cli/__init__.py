"""The command line. It uses the public API only."""
