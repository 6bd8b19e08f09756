"""Many people on a Ray cluster: a task a person. A task whose worker dies is tried again by Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence

from ..errors import ConfigError, MissingPackageError
from .people import FAILED, Entry, Outcome, bad_entry, train_entry

RETRIES = 3  # of a task whose worker or machine died; errors of the training itself are outcomes, not retried


def train_on_ray(
    entries: Sequence[Entry], model_digest: str, address: str | None, threads: int, gpus: float | None
) -> Iterator[Outcome]:
    """Each entry's outcome, as they come.

    Args:
        address: of a running cluster ("host:port" or "auto"); None starts one on this machine.
        threads: CPU threads, and Ray CPUs, of a task.
        gpus: Ray GPUs of a task; a fraction lets several share one; None: 1 where the cluster has any.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigError, ConnectionError: no cluster at the address, or none of its machines can hold a task.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(
            "ray to be installed", f"no {error.name}", 'Install the extra: python -m pip install "id-ea[ray]".'
        ) from error
    _require_cluster(address)
    ray.init(address=address or "local", log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        gpus = _require_resources([node["Resources"] for node in ray.nodes() if node["Alive"]], threads, gpus)
        task = ray.remote(_train).options(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)
        yield from map(bad_entry, (entry for entry in entries if not entry.job))
        waiting = {task.remote(entry.job, entry.line, model_digest, threads): entry for entry in entries if entry.job}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            entry = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                reason = next(iter(str(cause).strip().splitlines()), "")
                yield Outcome(entry.line, entry.name, FAILED, message=f"{type(cause).__name__}: {reason}")
    finally:
        ray.shutdown()


def _require_cluster(address: str | None) -> None:
    """Knock where a cluster should be; Ray itself would wait for minutes."""
    host, _, port = (address or "").split("://")[-1].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"a Ray cluster at {address}", f"no answer ({error})", "Start one with `ray start --head`, or leave it out."
        ) from None


def _require_resources(machines: Sequence[Mapping[str, float]], threads: int, gpus: float | None) -> float:
    """The GPUs of a task, which some machine can hold; Ray itself would wait for such a machine for ever."""
    if gpus is None:
        gpus = 1.0 if any(machine.get("GPU", 0) >= 1 for machine in machines) else 0.0
    if not any(machine.get("CPU", 0) >= threads and machine.get("GPU", 0) >= gpus for machine in machines):
        got = ", ".join(f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines)
        raise ConfigError(f"a machine of {threads} CPUs and {gpus:g} GPUs", got, "Lower --threads or --gpus.")
    return gpus


def _train(job, line: int, model_digest: str, threads: int) -> Outcome:
    import torch

    torch.set_num_threads(threads)
    return train_entry(job, line, model_digest)
