"""One person learned by one method, drawn, and measured."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from idea_core.faces.score import similarities
from idea_core.headless.diffusers import DiffusersBackbone, GenerateConfig
from idea_core.headless.jobs import ModelSource
from idea_core.headless.jobs.comparison import Comparison
from idea_core.headless.jobs.people import PROMPTS as PROMPTS_FILE
from idea_core.headless.jobs.people import REFERENCES, SETTINGS, Person
from idea_core.headless.jobs.photo_source import PhotoSource, Prepared
from idea_core.identity.identity import Identity
from idea_core.text.captions import PLACEHOLDER
from idea_core.training.config import TrainConfig
from idea_core.training.methods import Method
from idea_core.training.trainer import Trainer

from .images import to_photo
from .people import PARAMETERS, held_out_people
from .render import SIZE
from .scenes import Scenes
from .world import (
    ASKED,
    AT_ONCE,
    FACE_MODELS,
    GUIDANCE,
    SAMPLING_STEPS,
    all_names,
    draw_photos,
    embed,
    embed_second,
    face_engine,
    largest_faces,
    notes_of,
    obeyed,
    photos_of,
    portraits,
)

NAME = "somebody"
TRUE_PICTURES = 8  # references that drawn images are compared with
PROMPTS, PER_PROMPT = 6, 2
FALSE_ACCEPTS = 1e-3


@dataclass(frozen=True)
class Stranger:
    """A person whom no model has seen.

    Attributes:
        number: index among the test people.
        count: number of photos to train on.
    """

    number: int
    count: int = 1

    @cached_property
    def face(self) -> Tensor:
        """Parameters (K,)."""
        return held_out_people(self.number + 1)[self.number]

    @cached_property
    def scenes(self) -> Scenes:
        """The scenes of the photos."""
        return draw_photos(self.count, self._generator(0))

    @cached_property
    def photos(self) -> Tensor:
        """(P, 3, S, S) in 0…1."""
        return photos_of(self.face, self.scenes, self._generator(1))

    def write_photos(self, folder: Path) -> list[Path]:
        """The photos as PNG files, each with a text file of what else it shows."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{number}.png" for number in range(self.count)]
        for path, photo, note in zip(paths, self.photos, notes_of(self.scenes)):
            Image.fromarray(to_photo(photo)).save(path)
            path.with_suffix(".txt").write_text(note, "utf-8")
        return paths

    def prepared(self, folder: Path) -> Prepared:
        """The photos, read from files as a user's are."""
        source = PhotoSource(tuple(self.write_photos(folder)), crop="center", resolution=SIZE)
        return source.prepare(FACE_MODELS)

    def person(self, folder: Path) -> Person:
        """The person as a comparison reads them: photos, other true images and prompts, all written to a folder."""
        photos = self.write_photos(folder)
        references = [folder / REFERENCES / f"{number}.png" for number in range(TRUE_PICTURES)]
        references[0].parent.mkdir(exist_ok=True)
        for path, picture in zip(references, self.truth):
            Image.fromarray(to_photo(picture)).save(path)
        prompts = prompts_of(self.asked, PLACEHOLDER)[::PER_PROMPT]
        (folder / PROMPTS_FILE).write_text("\n".join(prompts), "utf-8")
        (folder / SETTINGS).write_text(json.dumps({"seed": self.number}), "utf-8")
        return Person(NAME, tuple(photos), tuple(references), tuple(prompts), {"seed": self.number})

    @cached_property
    def truth(self) -> Tensor:
        """(R, 3, S, S) other true images."""
        return self.true_pictures(draw_photos(TRUE_PICTURES, self._generator(2)), 3)

    @cached_property
    def references(self) -> tuple[Tensor, Tensor]:
        """Embeddings of the true images by the recogniser (R, 512) and by the second one (R, D)."""
        faces = largest_faces(self.truth)
        return embed(self.truth, faces), embed_second(self.truth, faces)

    @cached_property
    def asked(self) -> Scenes:
        """What prompts ask for: each of `PROMPTS` scenes, `PER_PROMPT` times."""
        return draw_photos(PROMPTS, self._generator(4))[torch.arange(PROMPTS).repeat_interleave(PER_PROMPT)]

    def true_pictures(self, scenes: Scenes, salt: int) -> Tensor:
        return photos_of(self.face, scenes, self._generator(salt))

    def _generator(self, salt: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.number + salt)


def learn(backbone: DiffusersBackbone, seen: Prepared, method: Method, config: TrainConfig) -> tuple[Identity, float]:
    """A trained person, and the seconds it took."""
    start = time.perf_counter()
    face, engine = seen.embeds.mean, face_engine() if config.likeness_weight else None
    trainer = Trainer.of(backbone, seen.photos, face, config, all_names(), start=method.start, engine=engine)
    trainer.run()
    identity = trainer.identity(NAME)
    seconds = time.perf_counter() - start
    return method.drawn(identity), seconds


def world_comparison(folder: Path, model: ModelSource, methods: Mapping[str, Method]) -> Comparison:
    """A comparison in which people of the world are trained and drawn as in the study."""
    return Comparison(
        folder=folder,
        model=model,
        faces=FACE_MODELS,
        photos=PhotoSource(crop="center", resolution=SIZE),
        methods=methods,
        prompts=portraits(PROMPTS),
        per_prompt=PER_PROMPT,
        drawing=GenerateConfig(steps=SAMPLING_STEPS, guidance=GUIDANCE, batch_size=AT_ONCE),
        names=all_names(),
        drawing_dtype="bf16",
    )


def prompts_of(scenes: Scenes, person: str) -> list[str]:
    return [scenes.caption(number, person) for number in range(len(scenes))]


def measure(pictures: Tensor, person: Stranger, scenes: Scenes) -> dict[str, float]:
    """Means over the images, `PER_PROMPT` of each prompt.

    Returns:
        identity, second: mean similarity to the reference images, which are other true images of the person, by
            either recogniser; no face counts as 0.
        verified: share of faces that are accepted as the person at one false accept in a thousand.
        detected: share of images with a face.
        background, hat, expression: share of images that show what was asked for; obedience is their mean.
        diversity: mean absolute difference of the images of one prompt, in 0…1.
    """
    faces = largest_faces(pictures)
    embedded, again = embed(pictures, faces), embed_second(pictures, faces)
    mine, seconds = person.references
    alike = similarities(embedded, mine)
    answers = {key: answer.float().mean().item() for key, answer in obeyed(pictures, scenes).items()}
    pairs = pictures.unflatten(0, (-1, PER_PROMPT))
    return {
        "identity": alike.mean().item(),
        "second": similarities(again, seconds).mean().item(),
        "verified": (alike.mean(1) > threshold()).float().mean().item(),
        "detected": sum(face is not None for face in faces) / len(faces),
        **answers,
        "obedience": sum(answers.values()) / len(ASKED),
        "diversity": (pairs[:, 0] - pairs[:, 1]).abs().mean().item(),
    }


@cache
def threshold() -> float:
    """Mean similarity to a person's true images that one stranger's image in a thousand reaches."""
    count, generator = 48, torch.Generator().manual_seed(77)
    faces = torch.randn(count, len(PARAMETERS), generator=generator)
    scenes = [draw_photos(TRUE_PICTURES, generator) for _ in range(count)]
    pictures = torch.cat([photos_of(face, part, generator) for face, part in zip(faces, scenes)])
    embedded = embed(pictures, largest_faces(pictures)).unflatten(0, (count, TRUE_PICTURES))  # (N, R, 512)
    likeness = torch.einsum("nrd,msd->nrms", embedded, embedded).mean(3)  # of each picture to each person
    strangers = likeness[~torch.eye(count, dtype=torch.bool)[:, None].expand(-1, TRUE_PICTURES, -1)]
    return strangers.quantile(1 - FALSE_ACCEPTS).item()
