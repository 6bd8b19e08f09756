"""Many people on a Ray cluster. Ray repeats a task whose worker dies."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ...enhancers.dataset import PeopleDataset
from ...enhancers.drawing import blocks
from ...errors import ConfigError, MissingPackageError, TrainingError
from .batch import FAILED, Outcome, train_entry
from .enhancer import PeopleJob
from .train import TrainJob
from .trial import Trial, run_trial

PEOPLE_PER_TASK = 4  # when drawing
RETRIES = 3  # of a task whose worker or machine died; a training's own error is an outcome and not repeated
_Task = TypeVar("_Task", bound="tuple[Any, ...]")


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the resources of each task.

    Attributes:
        address: of a running cluster ("host:port" or "auto"); None starts one on this machine.
        threads: CPU threads, and Ray CPUs, of a task.
        gpus: Ray GPUs of a task; a fraction lets tasks share a GPU; None: 1 if the cluster has any.
    """

    address: str | None = None
    threads: int = 1
    gpus: float | None = None

    def run(self, function: Callable[..., Any], tasks: Iterable[_Task]) -> Iterator[tuple[_Task, Any]]:
        """Call `function(*task)` for each task; yields tasks and their results, or a `TaskFailed`, as they finish.

        Raises:
            MissingPackageError: Ray is not installed.
            ConfigError, ConnectionError: no cluster at the address, or none of its machines can hold a task.
        """
        try:
            import ray
        except ImportError as error:
            raise MissingPackageError(
                "ray to be installed",
                f"no {error.name}",
                'Install the extra, above the package\'s folder: python -m pip install "./id-ea[ray]".',
            ) from error
        _require_cluster(self.address)
        if self.address is None and not os.environ.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray would write one into the home folder
        ray.init(address=self.address or "local", log_to_driver=False, configure_logging=False, include_dashboard=False)
        try:
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            gpus = _require_resources(machines, self.threads, self.gpus)
            remote = ray.remote(_call).options(num_cpus=self.threads, num_gpus=gpus, max_retries=RETRIES)
            waiting = {remote.remote(self.threads, function, *task): task for task in tasks}
            while waiting:
                (done, *_), _ = ray.wait(list(waiting))
                try:
                    result = ray.get(done)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    reason = next(iter(str(cause).strip().splitlines()), "")
                    result = TaskFailed(f"{type(cause).__name__}: {reason}")
                yield waiting.pop(done), result
        finally:
            ray.shutdown()


class TaskFailed(NamedTuple):
    """A task that ended with an error, or whose worker died too often."""

    message: str


def train_on_ray(jobs: Mapping[int, TrainJob], cluster: Cluster) -> Iterator[Outcome]:
    """The outcomes of trainings by line number, as they finish."""
    for (line, job), result in cluster.run(train_entry, jobs.items()):
        failed = isinstance(result, TaskFailed)
        yield Outcome(line, job.name, FAILED, message=result.message) if failed else result


def compare_on_ray(trials: Iterable[Trial], cluster: Cluster) -> Iterator[dict[str, Any]]:
    """`run_trial` for each trial; results as they finish."""
    for (trial,), result in cluster.run(run_trial, ((trial,) for trial in trials)):
        yield trial.failed(result.message) if isinstance(result, TaskFailed) else result


def draw_on_ray(job: PeopleJob, people: PeopleDataset, cluster: Cluster) -> Iterator[int]:
    """`PeopleJob.draw`, shared by the cluster's machines.

    Raises:
        TrainingError: some people could not be drawn; all others are done.
    """
    parts = max(1, min(len(people.config.all_names) // PEOPLE_PER_TASK, len(blocks(people.config))))
    failures = []
    for _, result in cluster.run(_draw, [(job, people, (part, parts)) for part in range(parts)]):
        if isinstance(result, TaskFailed):
            failures.append(result.message)
        else:
            yield from result
    if failures:
        raise TrainingError(
            f"images of all people from {parts} tasks",
            f"{len(failures)} that failed, the first with {failures[0].rstrip('.')}",
            "Run the same command again: finished images are kept.",
        )


def _require_cluster(address: str | None) -> None:
    """Check that a cluster answers: Ray itself would wait for minutes."""
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
    """The GPUs of a task, checked against the machines: Ray itself would wait forever for one that fits."""
    if gpus is None:
        gpus = 1.0 if any(machine.get("GPU", 0) >= 1 for machine in machines) else 0.0
    if not any(machine.get("CPU", 0) >= threads and machine.get("GPU", 0) >= gpus for machine in machines):
        got = ", ".join(f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines)
        raise ConfigError(f"a machine of {threads} CPUs and {gpus:g} GPUs", got, "Lower --threads or --gpus.")
    return gpus


def _call(threads: int, function: Callable[..., Any], *task: Any) -> Any:
    import torch

    torch.set_num_threads(threads)
    return function(*task)


def _draw(job: PeopleJob, people: PeopleDataset, shard: tuple[int, int]) -> list[int]:
    return list(job.draw(people, shard))
