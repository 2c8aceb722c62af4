"""What shows flows to people, each in a process of its own beside the proxy: the web view."""
