"""The demo: from photos to images, measured, for ID-EA and the methods that it is compared with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from idea_core.enhancers.config import RefineConfig
from idea_core.enhancers.refine import Refiner
from idea_core.evaluation.report import data_url
from idea_core.headless.config import GenerateConfig
from idea_core.headless.diffusers import DiffusersBackbone, People
from idea_core.headless.diffusers.generate import generate_each
from idea_core.identity.identity import Identity
from idea_core.training.config import PRESETS, TrainConfig
from idea_core.training.methods import CROSS_INITIALIZATION, ID_EA, TEXTUAL_INVERSION, Method
from idea_core.training.trainer import Trainer

from .names import known_names
from .scenes import SIZE, portraits
from .somebody import MEASURES, PER_PROMPT, Somebody
from .world import DRAWING_STEPS, GUIDANCE, SAMPLING_STEPS, World, read

STAGES = 8
NAME, AT_ONCE = "somebody", 12
RATES = {TEXTUAL_INVERSION: 1e-2, CROSS_INITIALIZATION: 0.3}  # of tokens: the best of three and of four for one person
DRAWING = GenerateConfig(steps=SAMPLING_STEPS, guidance=GUIDANCE, batch_size=AT_ONCE)
REFINING = RefineConfig(
    prompts=portraits(RefineConfig.num_images),
    resolution=SIZE,
    sampling_steps=DRAWING_STEPS,
    guidance=GUIDANCE,
    sampling_batch_size=AT_ONCE,
)


@dataclass(frozen=True)
class Row:
    """Images of the person's prompts, and their measures.

    Attributes:
        seconds: duration of the training; None without one.
    """

    title: str
    images: Sequence[np.ndarray]
    measures: dict[str, float]
    seconds: float | None = None


class Demo:
    """One person learned by several methods, drawn, and measured.

    Args:
        folder: for the models, identities, images, `scores.json` and `report.html`.
        steps: training steps of the methods that ID-EA is compared with.
        drawing: how images are drawn, and the seed of the first.
        refining: how an answer of the ID-Enhancer is drawn, compared with the face, and corrected.
    """

    def __init__(
        self,
        folder: Path,
        person: Somebody,
        steps: int,
        drawing: GenerateConfig = DRAWING,
        refining: RefineConfig = REFINING,
    ):
        self.folder, self.person, self.steps = folder, person, steps
        self.drawing, self.refining = drawing, refining

    def run(self, on_stage: Callable[[str], None]) -> dict[str, Any]:
        """The figures, and under "report" the path of the page that shows them.

        Args:
            on_stage: called with the name of the next stage, `STAGES` times.
        """
        start = time.perf_counter()
        on_stage("photos and models")
        world = World.shipped(self.folder / "models")
        seen, backbone = self.person.prepared(world), DiffusersBackbone(world.pipeline)
        rows = [self._row(world, "True pictures", self.person.true_images())]
        on_stage("base model")
        known = known_names()[0]
        rows.append(self._row(world, f"Base model, “{known}”", self._drawn(world, None, known)))
        others = [(method, method.config(steps=self.steps, token_lr=rate)) for method, rate in RATES.items()]
        seen_people = Method("ID-EA, pretrained ID-Enhancer", {}, world.enhancer)
        for method, config in (*others, (ID_EA, PRESETS["fast"]), (seen_people, PRESETS["fast"])):
            on_stage(f"{method.title}, {config.steps} steps")
            rows.append(self._learned(world, backbone, seen, method, config))
        on_stage("at once")
        face = seen.embeds.mean
        rows.append(self._made(world, "at once", lambda: world.enhancer.identity(NAME, face)))
        on_stage("at once, refined")
        refiner = Refiner(backbone, world.enhancer, world.engine, self.refining)

        def refined() -> Identity:
            return world.enhancer.identity(NAME, face, refiner.refine(face)[-1].shown)

        rows.append(self._made(world, "at once, refined", refined))
        return self._write(rows, time.perf_counter() - start)

    def _learned(self, world: World, backbone, seen, method: Method, config: TrainConfig) -> Row:
        def learn() -> Identity:
            trainer = Trainer.of(backbone, seen.photos, seen.embeds.mean, config, known_names(), start=method.start)
            trainer.run()
            return method.drawn(trainer.identity(NAME))

        return self._made(world, f"{method.title}, {config.steps} steps", learn)

    def _made(self, world: World, title: str, make: Callable[[], Identity]) -> Row:
        """A row of a person whom `make` makes, and who goes through a file."""
        start = time.perf_counter()
        identity = make()
        seconds = time.perf_counter() - start
        file = self.folder / "identities" / f"{_file_name(title)}.safetensors"
        identity.save(file)
        identity = Identity.load(file)
        return self._row(world, title, self._drawn(world, identity, identity.trigger), seconds)

    def _drawn(self, world: World, identity: Identity | None, name: str) -> list[np.ndarray]:
        people = People(world.pipeline, [identity] if identity else [])
        images = generate_each(world.pipeline, people, self.person.prompts(name), self.drawing)
        return list(map(np.asarray, images))

    def _row(self, world: World, title: str, images: Sequence[np.ndarray], seconds: float | None = None) -> Row:
        return Row(title, images, self.person.measure(images, world), seconds)

    def _write(self, rows: Sequence[Row], seconds: float) -> dict[str, Any]:
        """Write images, figures as JSON, and the page of both."""
        for row in rows:
            place = self.folder / "pictures" / _file_name(row.title)
            place.mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(row.images):
                Image.fromarray(image).save(place / f"{number:02}.png")
        prompts = self.person.prompts(f"<{NAME}>")[::PER_PROMPT]
        data = {"person": self.person.folder.name, "seconds": round(seconds, 1), "prompts": prompts}
        data["rows"] = [{"title": row.title, "seconds": row.seconds, **row.measures} for row in rows]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "scores.json").write_text(json.dumps(data, indent=2, ensure_ascii=False), "utf-8")
        report = self.folder / "report.html"
        report.write_text(self._page(rows, prompts, seconds), "utf-8")
        return {**data, "report": str(report)}

    def _page(self, rows: Sequence[Row], prompts: Sequence[str], seconds: float) -> str:
        from jinja2 import Environment

        template = resources.files(__package__).joinpath("demo.html.j2").read_text("utf-8")
        return (
            Environment(autoescape=True)
            .from_string(template)
            .render(
                photos=[_address(read(path)) for path in self.person.photos],
                prompts=prompts,
                rows=[(row, list(map(_address, row.images[::PER_PROMPT]))) for row in rows],
                measures=MEASURES,
                count=len(prompts) * PER_PROMPT,
                seconds=seconds,
            )
        )


def _address(image: np.ndarray) -> str:
    return data_url(Image.fromarray(image), "JPEG", quality=92)


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
