"""What every version of HTTP shares: settings, counters, calls of the handler."""
