"""The cluster of the environment variable ``TF_CONFIG``: read, checked, and waited for.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                "task": {"type": "worker", "index": 0}}'

A worker waits for the others for ``TFKD_WORKER_SECONDS``, by default 600.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import time
from typing import Any

# The time that workers wait for one another has no public name in TensorFlow.
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from tfkd.errors import TfkdError

JOBS = ("chief", "worker")
"""The jobs whose tasks train together, the leader's first."""

_SECONDS = "TFKD_WORKER_SECONDS"
_USUAL_SECONDS = 600.0
_FORM = "wanted JSON such as " + json.dumps(
    {"cluster": {"worker": ["host:port"]}, "task": {"type": "worker", "index": 0}}
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers that train together.

    Attributes:
        jobs: The number of tasks of each job.
        addresses: ``host:port`` of every task, the leader's first.
        own: That of this process.
    """

    jobs: dict[str, int]
    addresses: tuple[str, ...]
    own: str


def read() -> Cluster | None:
    """Returns the cluster of ``TF_CONFIG``; ``None`` where the variable is not set, or ``{}``.

    Raises:
        TfkdError: When it is not of the form that TensorFlow wants.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong(f"found {text[:80]!r}") from None
    if found == {}:
        return None
    found = _dict(found, "")
    jobs = _dict(found.get("cluster"), "cluster: ")
    others = sorted(set(jobs) - set(JOBS))
    if others or not jobs:
        raise _wrong(f"cluster: found the jobs {', '.join(others) or 'none'}", "chief and worker")
    addresses = {job: _addresses(job, jobs[job]) for job in JOBS if job in jobs}
    if len(addresses.get("chief", ())) > 1:
        raise _wrong(f"cluster.chief: found {len(addresses['chief'])} tasks", "one")
    listed = [each for job in addresses.values() for each in job]
    repeated = sorted({each for each in listed if listed.count(each) > 1})
    if repeated:
        raise _wrong(f"cluster: found {repeated[0]} twice", "an address of its own for each task")
    task = _dict(found.get("task"), "task: ")
    job, index = task.get("type"), task.get("index")
    if not isinstance(job, str) or job not in addresses:
        raise _wrong(f"task.type: found {job!r}", " or ".join(map(repr, addresses)))
    if isinstance(index, str) and re.fullmatch(r"\d{1,9}", index):
        index = int(index)
    whole = isinstance(index, int) and not isinstance(index, bool)
    if not whole or not 0 <= index < len(addresses[job]):
        last = len(addresses[job]) - 1
        raise _wrong(f"task.index: found {index!r}", f"a whole number from 0 to {last}")
    counts = {job: len(each) for job, each in addresses.items()}
    return Cluster(counts, tuple(listed), addresses[job][index])


def _wrong(found: str, wanted: str | None = None) -> TfkdError:
    return TfkdError(f"TF_CONFIG: {found}, {_FORM if wanted is None else f'wanted {wanted}'}")


def _dict(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{where}found {value!r}")
    return value


def _addresses(job: str, value: Any) -> list[str]:
    """Returns the addresses of a job, checked."""
    if not isinstance(value, list) or not value:
        raise _wrong(f"cluster.{job}: found {value!r}", "a list of 'host:port'")
    for each in value:
        parts = None
        if isinstance(each, str) and each.isprintable():
            parts = re.fullmatch(r"(\[[^]]+\]|[^:\s]+):(\d{1,5})", each)
        if parts is None or not 0 < int(parts[2]) < 2**16:
            raise _wrong(f"cluster.{job}: found {each!r}", "'host:port' with a port below 65536")
        try:
            parts[1].strip("[]").encode("idna")
        except UnicodeError:
            raise _wrong(
                f"cluster.{job}: found {each!r}",
                "the name of a host, whose parts between dots have 1 to 63 characters",
            ) from None
    return value


def wait_seconds() -> float:
    """Returns how long a worker waits for the others.

    Raises:
        TfkdError: When the environment says something that is no number > 0.
    """
    text = os.environ.get(_SECONDS, "") or str(_USUAL_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise TfkdError(f"{_SECONDS}: found {text!r}, wanted a number of seconds > 0")
    return seconds


def bound_wait(cluster: Cluster) -> None:
    """Sees to it that this worker waits for the others for a while and not for ever.

    The leader, for which TensorFlow has no limit, waits here until all others listen; those listen
    first and then try to reach the leader, for as long as is set here.

    Args:
        cluster: The cluster.

    Raises:
        TfkdError: For a worker that the leader does not reach in time.
    """
    leader, *others = cluster.addresses
    if cluster.own == leader:
        _wait_for(others)
        return
    job = next(iter(cluster.jobs))
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{job}/replica:0/task:0",
        # TensorFlow tries twice.
        cluster_register_timeout_in_ms=int(500 * wait_seconds()),
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=name, num_tasks=count)
            for name, count in cluster.jobs.items()
        ],
    )


def _wait_for(addresses: list[str]) -> None:
    """Waits until somebody listens at all addresses."""
    end, told = time.monotonic() + wait_seconds(), False
    for address in addresses:
        while not _listens(address):
            if time.monotonic() > end:
                raise missing(address)
            if not told:
                print(f"waiting for worker {address}, {wait_seconds():g} s at most", flush=True)
                told = True
            time.sleep(0.2)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True
    except OSError:
        return False


def missing(address: str) -> TfkdError:
    """Returns the error for a worker that did not come in time."""
    return TfkdError(
        f"strategy 'multi_worker': found nobody at {address} within {wait_seconds():g} s, wanted "
        f"every worker of TF_CONFIG started and its port reachable ({_SECONDS} waits longer)"
    )
