"""Transfer: what the features of a trained student are worth on other images, by probes."""

from tfkd.evaluation.transfer.embedding import Embeddings, embeddings
from tfkd.evaluation.transfer.linear import linear_probe
from tfkd.evaluation.transfer.logistic import logistic_probe
from tfkd.evaluation.transfer.neighbors import neighbor_probe
from tfkd.evaluation.transfer.probing import probe, probe_runs
from tfkd.evaluation.transfer.table import as_markdown, write_rows

__all__ = [
    "Embeddings",
    "as_markdown",
    "embeddings",
    "linear_probe",
    "logistic_probe",
    "neighbor_probe",
    "probe",
    "probe_runs",
    "write_rows",
]
