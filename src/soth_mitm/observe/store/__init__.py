"""The flow store: an SQLite file that a sink writes, and that the command line and the views read."""
