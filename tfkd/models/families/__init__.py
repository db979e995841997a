"""Published networks, a file each."""
