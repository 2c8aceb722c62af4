"""Trust stores: the system's of each operating system, and the NSS databases of browsers."""
