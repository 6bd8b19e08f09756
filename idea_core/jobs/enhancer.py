"""An Enhancer across people, from names that a base model can draw to a file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..across import AcrossConfig, AcrossTrainer, PeoplePictures
from ..anchor import celebrity_names, cross_initialise
from ..captions import PLACEHOLDER, PORTRAIT_PROMPTS
from ..diffusers_backbone import DiffusersBackbone, GenerateConfig, People
from ..diffusers_backbone.generate import conditions, sample
from ..errors import ConfigError, IdentityFileError, TrainingError
from ..faces import FaceEngine
from ..pretrained import PretrainedEnhancer
from ..tensorfile import read_tensors, write_tensors
from ..version import __version__
from .sources import FaceSource, ModelSource

FORMAT, FORMAT_VERSION = "id-ea-person-pictures", "1"
_LEAST_KEPT = 3  # pictures of a person; the face in one, the picture in another, and one to agree with them


@dataclass(frozen=True)
class PeopleJob:
    """Pictures of people whom the base model knows by name, and what is learned from them.

    Attributes:
        folder: one file a person, `people/00042.safetensors`, and a strip of the pictures beside it.
        names: of people whom the base model can draw.
        prompts: with `{}` for the name.
        per_person: pictures of each.
        agreement: least cosine of a picture's face to the mean face of the person's other pictures.
        held_out: share of the names that only `evaluate` uses.
    """

    folder: Path
    model: ModelSource
    faces: FaceSource = FaceSource()
    names: tuple[str, ...] = field(default_factory=celebrity_names)
    prompts: tuple[str, ...] = PORTRAIT_PROMPTS
    per_person: int = 20
    sampling: GenerateConfig = GenerateConfig(steps=25)
    agreement: float = 0.4
    held_out: float = 0.05

    def __post_init__(self):
        if self.per_person < _LEAST_KEPT:
            raise ConfigError(f"per_person of at least {_LEAST_KEPT}", str(self.per_person), "Ask for more pictures.")
        for prompt in self.prompts:
            if PLACEHOLDER not in prompt:
                raise ConfigError(f"prompts with {PLACEHOLDER} for the name", repr(prompt), f"Put {PLACEHOLDER} in.")

    def fingerprint(self, model_digest: str) -> str:
        """SHA-256 of all that a person's pictures depend on."""
        settings = {
            "model": model_digest,
            "dtype": self.model.chosen_dtype(),
            "faces": self.faces.digest(),
            "prompts": self.prompts,
            "per_person": self.per_person,
            "sampling": {**asdict(self.sampling), "batch_size": 0},
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def file_of(self, number: int) -> Path:
        return self.folder / "people" / f"{number:05}.safetensors"

    def draw(self, fingerprint: str, shard: tuple[int, int] = (0, 1)) -> Iterator[int]:
        """Make the pictures that are not there yet, person after person; each one's number.

        Args:
            fingerprint: `self.fingerprint(...)`; files of another one are made anew.
            shard: (i, k): every k-th person from the i-th on, so that several machines share the work.
        """
        engine, backbone = self.faces.load(), DiffusersBackbone(self.model.load())
        for number in range(shard[0], len(self.names), shard[1]):
            if self._stored(number, fingerprint) is None:
                self._draw_person(number, engine, backbone, fingerprint)
            yield number

    def pictures(self, fingerprint: str, held_out: bool = False) -> tuple[PeoplePictures, list[str]]:
        """What was drawn, as far as it is of use, of those to learn from or of those held out; and whom it shows.

        Raises:
            TrainingError: too few people.
        """
        parts, names = [], []
        for number in self._numbers(held_out):
            stored = self._stored(number, fingerprint)
            if stored is None:
                continue
            tensors, prompts = stored
            kept = _agreeing(tensors["faces"].float(), self.agreement)
            if int(kept.sum()) >= _LEAST_KEPT:
                chosen = kept.nonzero()[:, 0]
                people = torch.full((len(chosen),), len(names))
                captions = [prompts[index] for index in chosen.tolist()]
                parts.append((tensors["latents"][chosen], tensors["faces"][chosen].float(), people, captions))
                names.append(self.names[number])
        if not parts:
            raise TrainingError(
                f"people with {_LEAST_KEPT} pictures that agree, in {self.folder}",
                "none",
                "Use names that this base model can draw, or lower the agreement.",
            )
        latents, faces, people, captions = zip(*parts)
        everything = PeoplePictures(torch.cat(latents), torch.cat(faces), torch.cat(people), list(chain(*captions)))
        return everything, names

    def train(
        self,
        config: AcrossConfig,
        model_digest: str,
        fingerprint: str,
        on_step: Callable[[int, float], None] | None = None,
    ) -> PretrainedEnhancer:
        """Learn from the pictures that are there."""
        backbone = DiffusersBackbone(self.model.load())
        pictures, names = self.pictures(fingerprint)
        trainer = AcrossTrainer(backbone, cross_initialise(backbone, names, 2), pictures, config)
        trainer.run(on_step)
        training = {
            **config.as_dict(),
            "people": len(names),
            "pictures": len(pictures.prompts),
            "final_loss": round(float(np.mean(trainer.losses[-50:])), 6),
            "fingerprint": fingerprint,
            "version": __version__,
        }
        provenance = {"base_checkpoint": self.model.path.name, "base_hash": model_digest, "training": training}
        return PretrainedEnhancer.of(trainer.model, backbone, **provenance)

    def evaluate(self, enhancer: PretrainedEnhancer, fingerprint: str, each: int = 4) -> Iterator[dict]:
        """For each person held out: likeness of instant pictures, and of the base model's own by name.

        Likeness is the mean cosine to faces of the person that the Enhancer was not given.
        """
        engine, pipeline = self.faces.load(), self.model.load()
        pictures, names = self.pictures(fingerprint, held_out=True)
        for number, name in enumerate(names):
            faces = pictures.faces[pictures.people == number]
            given, others = faces[::2], faces[1::2]
            identity = enhancer.identity("somebody", torch.nn.functional.normalize(given.mean(0), dim=0))
            people = People(pipeline, [identity])
            inputs = [conditions(people, self.prompts[index % len(self.prompts)]) for index in range(each)]
            drawn = sample(pipeline, people, inputs, range(each), self.sampling)
            found = _faces_of(engine, drawn)
            yield {
                "name": name,
                "likeness": float((found @ others.T).mean()),
                "by_name": float((given @ others.T).mean()),
                "detected": float((found.norm(dim=1) > 0).float().mean()),
            }

    def _numbers(self, held_out: bool) -> range:
        border = len(self.names) - round(len(self.names) * self.held_out)
        return range(border, len(self.names)) if held_out else range(border)

    def _draw_person(self, number: int, engine: FaceEngine, backbone: DiffusersBackbone, fingerprint: str) -> None:
        pipeline = self.model.load()
        nobody = People(pipeline, [])
        first = number * self.per_person
        prompts = [self.prompts[(first + index) % len(self.prompts)] for index in range(self.per_person)]
        drawn: list[Image.Image] = []
        for begin in range(0, self.per_person, self.sampling.batch_size):
            part = prompts[begin : begin + self.sampling.batch_size]
            inputs = [conditions(nobody, p.replace(PLACEHOLDER, self.names[number])) for p in part]
            seeds = range(self.sampling.seed + first + begin, self.sampling.seed + first + begin + len(part))
            drawn += sample(pipeline, nobody, inputs, seeds, self.sampling)
        images = torch.from_numpy(np.stack([np.asarray(picture) for picture in drawn])).float() / 255
        with torch.no_grad():
            latents = backbone.encode_images(images).mean
        tensors = {"latents": latents.half().cpu(), "faces": _faces_of(engine, drawn)}
        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "fingerprint": fingerprint,
            "name": self.names[number],
            "prompts": json.dumps(prompts),
        }
        path = self.file_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        _strip(drawn).save(path.with_suffix(".jpg"), quality=85)
        write_tensors(path, tensors, metadata)

    def _stored(self, number: int, fingerprint: str) -> tuple[dict[str, Tensor], list[str]] | None:
        """A person's pictures; None if they are not there, damaged, or of other settings."""
        try:
            tensors, metadata = read_tensors(self.file_of(number), _require_format)
            same = metadata["fingerprint"] == fingerprint and metadata["name"] == self.names[number]
            return (tensors, json.loads(metadata["prompts"])) if same else None
        except FileNotFoundError:
            return None
        except (IdentityFileError, KeyError, ValueError) as error:
            logging.warning("ID-EA: %s is drawn anew. %s", self.file_of(number), error)
            return None


def _faces_of(engine: FaceEngine, drawn: Sequence[Image.Image]) -> Tensor:
    """Normalised embeddings (B, 512) of the one face in each picture; zeros where there is none, or several."""
    rows = torch.zeros(len(drawn), 512)
    for number, picture in enumerate(drawn):
        photo = np.asarray(picture)
        faces = engine.detect(photo)
        if len(faces) == 1:
            rows[number] = torch.from_numpy(engine.embed(photo, faces[0]))
    return torch.nn.functional.normalize(rows, dim=1)


def _agreeing(faces: Tensor, agreement: float) -> Tensor:
    """Which faces (P, 512) are one person's: near enough to the mean of the others."""
    found = faces.norm(dim=1) > 0
    others = torch.nn.functional.normalize(faces.sum(0) - faces, dim=1)
    return found & ((faces * others).sum(1) >= agreement)


def _strip(pictures: Sequence[Image.Image], side: int = 128) -> Image.Image:
    strip = Image.new("RGB", (side * len(pictures), side))
    for number, picture in enumerate(pictures):
        strip.paste(picture.resize((side, side)), (number * side, 0))
    return strip


def _require_format(metadata) -> None:
    said = metadata.get("format"), metadata.get("format_version")
    if said != (FORMAT, FORMAT_VERSION):
        raise IdentityFileError(f"a file of format {FORMAT} {FORMAT_VERSION}", str(said), "Delete the file.")
