"""Whole-proxy measurements: native ends, tuned opponents, one table. See bench/README.md."""
