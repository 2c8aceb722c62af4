"""Ways to an upstream. Each is a file with a class that has `Outbound`'s method; `Origin.via` names the one to take."""
