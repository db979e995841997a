"""The binaries: flags and nothing else; the work is done by the library."""
