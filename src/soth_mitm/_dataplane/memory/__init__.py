"""Bytes and times: borrowed views, the memory of a loop, its budget, deadlines."""
