"""What Linux knows of sockets and the processes that own them, compiled."""
