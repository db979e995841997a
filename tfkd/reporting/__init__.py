"""Tables of a Markdown page that are written from the files of runs and benchmarks."""

from tfkd.reporting.page import Table, rewrite, tables

__all__ = ["Table", "rewrite", "tables"]
