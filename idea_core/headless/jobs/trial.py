"""One trial of a comparison: a person is learned by a method, drawn and measured.

A trial's result is written in one move when it is complete, so that a comparison may be stopped at any moment.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from ...errors import IdeaError
from ...evaluation import ClipScorer, ImageScore, Witness, score_images, summarise
from ...faces import FaceEngine, IdEmbeds
from ...faces.photos import read_photo
from ...files.digest import Digest, file_digest
from ...files.tensorfile import write_atomically
from ...files.textfile import read_text
from ...identity.identity import Identity
from ...text.captions import PLACEHOLDER
from .comparison import Comparison
from .people import Person
from .photo_source import encode_named
from .sources import FaceSource, choose_device
from .train import TrainJob

SEED_STEP = 1000  # between the seeds of two repetitions


@dataclass(frozen=True)
class Trial:
    """One person learned by one method.

    Attributes:
        repetition: number of the repetition, from 0, which decides the seeds.
    """

    comparison: Comparison
    person: Person
    method: str
    repetition: int = 0

    @property
    def place(self) -> Path:
        """Folder of the person, and the trial's name, below each of the comparison's folders."""
        return Path(self.person.name) / (f"{self.method}-{self.repetition}" if self.repetition else self.method)

    @property
    def file(self) -> Path:
        """The trial's result."""
        return self.comparison.folder / "trials" / self.place.with_name(self.place.name + ".json")

    @property
    def images(self) -> Path:
        """Folder of the trial's images."""
        return self.comparison.folder / "images" / self.place

    @property
    def image_files(self) -> list[Path]:
        """A file for each prompt's images."""
        return [self.images / f"{number:03}.png" for number in range(len(self.prompts))]

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of each image."""
        own = self.person.prompts or self.comparison.prompts
        return [prompt for prompt in own for _ in range(self.comparison.per_prompt)]

    @cached_property
    def job(self) -> TrainJob:
        """The training."""
        shared, method = self.comparison, self.comparison.methods[self.method]
        config = method.config(**self.person.settings)
        return TrainJob(
            name=self.person.name,
            output=shared.folder / "people" / self.place.with_name(self.place.name + ".safetensors"),
            model=shared.model,
            photos=dataclasses.replace(shared.photos, places=self.person.photos),
            faces=shared.faces,
            config=dataclasses.replace(config, seed=config.seed + SEED_STEP * self.repetition),
            captions=method.captions,
            names=shared.names,
            enhancer=shared.enhancer if method.enhancer else None,
            start=None if method.enhancer else method.start,
            refine=shared.refining if method.refined else None,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the result depends on."""
        shared = self.comparison
        digest = Digest().add_text(self.job.fingerprint)
        for path in self.person.references:
            digest.add_file(path)
        clip = sorted(shared.clip.glob("*.safetensors")) if shared.clip else []
        return digest.add_json(
            {
                "left_out": shared.methods[self.method].left_out,
                "faces": shared.faces.digest(),
                "prompts": self.prompts,
                "drawing": shared.drawing.as_dict(),
                "dtype": shared.drawing_model.chosen_dtype(),
                "clip": [file_digest(path) for path in clip],
                "witness": shared.witness.digest() if shared.witness else "",
            }
        ).hex()

    def finished(self) -> dict[str, Any] | None:
        """The result of an earlier run of the same inputs; None without one."""
        try:
            result = json.loads(read_text(self.file))
        except (OSError, ValueError, IdeaError):
            return None
        return result if isinstance(result, dict) and result.get("fingerprint") == self.fingerprint else None

    def run(self) -> dict[str, Any]:
        """Train, draw, measure and write the result.

        Raises:
            IdeaError: an input that does not fit, or a training that diverges.
            OSError: a file could not be written.
        """
        identity, cost = self._learn()
        paths = self._draw(identity)
        scores = list(self._measure(paths))
        result = {
            **self._who(),
            "fingerprint": self.fingerprint,
            **cost,
            **summarise(scores),
            "scores": [{**vars(score), "path": score.path.name} for score in scores],
        }
        _write(self.file, json.dumps(result, ensure_ascii=False, indent=1))
        return result

    def failed(self, message: str) -> dict[str, Any]:
        """The result of a trial that failed."""
        return {**self._who(), "error": message}

    def _who(self) -> dict[str, Any]:
        return {"person": self.person.name, "method": self.method, "repetition": self.repetition}

    def _learn(self) -> tuple[Identity, dict[str, float | int | None]]:
        """The person, and what it cost: steps, seconds, the GPU's peak bytes, the file's bytes."""
        job = self.job
        identity, timed = job.finished(), job.output.with_suffix(".seconds")
        if identity is None:
            job.model.load()  # loading counts for no method
            job.faces.load()
            start = time.perf_counter()
            identity = job.run()
            _write(timed, f"{time.perf_counter() - start:.3f}")
        report = identity.training.get("report", {})
        seconds = float(read_text(timed)) if timed.exists() else sum(report.get("seconds", {}).values())
        memory = report.get("peak_memory_bytes")
        size = job.output.stat().st_size
        return identity, {"steps": job.config.steps, "seconds": seconds, "peak_memory_bytes": memory, "bytes": size}

    def _draw(self, identity: Identity) -> list[Path]:
        from ..diffusers import people_of
        from ..diffusers.generate import generate_each

        shared = self.comparison
        drawn = shared.methods[self.method].drawn(identity)
        pipeline = shared.drawing_model.load()
        people, config = people_of(pipeline, [drawn]), shared.drawing
        config = dataclasses.replace(config, seed=config.seed + SEED_STEP * self.repetition)
        prompts = [prompt.replace(PLACEHOLDER, drawn.trigger) for prompt in self.prompts]
        self.images.mkdir(parents=True, exist_ok=True)
        for path, image in zip(self.image_files, generate_each(pipeline, people, prompts, config)):
            image.save(path)
        return self.image_files

    def _measure(self, paths: Sequence[Path]) -> Iterator[ImageScore]:
        shared = self.comparison
        engine, references = shared.faces.load(), self.person.references or self.person.photos
        embeds, witness = _references(shared.faces, shared.witness, references)
        clip = _clip(shared.clip, shared.model.device) if shared.clip else None
        prompts = dict(zip(paths, self.prompts))
        return score_images(paths, engine, embeds, prompts.get, clip, witness)


def trials_of(comparison: Comparison, people: Sequence[Person], repetitions: int = 1) -> Iterator[Trial]:
    """Every person by every method, as often as said, person by person."""
    for person, repetition, method in product(people, range(repetitions), comparison.methods):
        yield Trial(comparison, person, method, repetition)


def run_trial(trial: Trial) -> dict[str, Any]:
    """The result of a trial, an earlier one if there is one. An error becomes a result, so that the others continue."""
    try:
        return trial.finished() or trial.run()
    except (IdeaError, OSError) as error:
        message = str(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    return trial.failed(message)


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


@lru_cache(maxsize=8)
def _references(
    faces: FaceSource, witness: FaceSource | None, photos: tuple[Path, ...]
) -> tuple[IdEmbeds, Witness | None]:
    """A person's reference photos as both recognisers see them."""
    engine, images = faces.load(), [read_photo(path) for path in photos]
    embeds, _ = encode_named(engine, images, photos)
    return embeds, Witness.of(_witness(witness), engine, images) if witness else None


@lru_cache(maxsize=1)
def _witness(source: FaceSource) -> FaceEngine:
    return source.build()


@lru_cache(maxsize=1)
def _clip(folder: Path, device: str) -> ClipScorer:
    return ClipScorer(folder, choose_device(device))
