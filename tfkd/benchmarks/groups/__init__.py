"""One file for each group of benchmarks; see :mod:`tfkd.benchmarks.runner`."""
