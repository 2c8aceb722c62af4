"""HTTP/1.1: where a message ends, how a head is written."""
