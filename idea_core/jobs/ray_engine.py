"""Many people on a Ray cluster: a task a person. A task whose worker dies is tried again by Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

from ..errors import ConfigError, MissingPackageError
from .people import FAILED, Entry, Outcome, bad_entry, train_entry

RETRIES = 3  # of a task whose worker or machine died; errors of the training itself are outcomes, not retried


def train_on_ray(
    entries: Sequence[Entry], model_digest: str, address: str | None, threads: int, gpus: float
) -> Iterator[Outcome]:
    """Each entry's outcome, as they come.

    Args:
        address: of a running cluster ("host:port" or "auto"); None starts one on this machine.
        threads: CPU threads, and Ray CPUs, of a task.
        gpus: Ray GPUs of a task; a fraction lets several share one.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigError, ConnectionError: no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(
            "ray to be installed", f"no {error.name}", 'Install the extra: python -m pip install "id-ea[ray]".'
        ) from error
    _require_cluster(address)
    ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        task = ray.remote(_train).options(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)
        yield from map(bad_entry, (entry for entry in entries if not entry.job))
        waiting = {task.remote(entry.job, entry.line, model_digest, threads): entry for entry in entries if entry.job}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            entry = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0]
                yield Outcome(entry.line, entry.name, FAILED, message=f"{type(error).__name__}: {reason}")
    finally:
        ray.shutdown()


def _require_cluster(address: str | None) -> None:
    """Knock where a cluster should be; Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"a Ray cluster at {address}", f"no answer ({error})", "Start one with `ray start --head`, or leave it out."
        ) from None


def _train(job, line: int, model_digest: str, threads: int) -> Outcome:
    import torch

    torch.set_num_threads(threads)
    return train_entry(job, line, model_digest)
