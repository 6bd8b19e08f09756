"""The demo: from photos to images, measured, for ID-EA and the methods that it is compared with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from idea_core.evaluation.report import data_url
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from idea_core.identity.identity import Identity
from idea_core.training.config import PRESETS
from idea_core.training.methods import CROSS_INITIALIZATION, ID_EA, TEXTUAL_INVERSION

from .methods import REFINED, SEEN
from .people import named_people
from .trial import NAME, PER_PROMPT, PROMPTS, Stranger, learn, measure, prompts_of
from .world import BASE, draw, to_photo

STAGES = 8
MEASURES = ("identity", "second", "verified", "obedience")


@dataclass(frozen=True)
class Row:
    """Images of the six prompts, and their measures.

    Attributes:
        seconds: duration of the training; None without one.
        measures: result of `measure`.
    """

    title: str
    pictures: Tensor
    measures: dict[str, float]
    seconds: float | None = None


def run(folder: Path, person: Stranger, steps: int, seed: int, on_stage: Callable[[str], None]) -> dict[str, Any]:
    """Run the demo; the figures, and under "report" the path of the page that shows them.

    Args:
        folder: for photos, identities, images, `scores.json` and `report.html`.
        steps: training steps of the methods that ID-EA is compared with.
        on_stage: called with the name of the next stage, `STAGES` times.
    """
    start = time.perf_counter()
    on_stage("photos and face models")
    seen = person.prepared(folder / "photos")
    pipeline = load_pipeline(BASE)
    rows = [_row("True pictures", person.true_pictures(person.asked, 5), person)]
    on_stage("base model")
    known = named_people().names()[person.number]
    named = draw(pipeline, [], prompts_of(person.asked, known), seed)
    rows.append(_row(f"Base model, “{known}”", named, person))
    backbone = DiffusersBackbone(pipeline)
    fast, at_once = PRESETS["fast"], replace(PRESETS["fast"], steps=0)
    others = [(method, method.config(steps=steps)) for method in (TEXTUAL_INVERSION, CROSS_INITIALIZATION)]
    for method, config in (*others, (ID_EA, fast), (SEEN, at_once), (REFINED, at_once), (SEEN, fast)):
        title = f"{method.title}, {config.steps} steps"
        on_stage(title)
        trained, seconds = learn(backbone, seen, method, config)
        file = folder / "identities" / f"{_file_name(title)}.safetensors"
        trained.save(file)
        identity = Identity.load(file)
        pictures = draw(pipeline, [identity], prompts_of(person.asked, identity.trigger), seed)
        rows.append(_row(title, pictures, person, seconds))
    return _write(folder, person, rows, time.perf_counter() - start)


def _row(title: str, pictures: Tensor, person: Stranger, seconds: float | None = None) -> Row:
    return Row(title, pictures, measure(pictures, person, person.asked), seconds)


def _write(folder: Path, person: Stranger, rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    """Write images, figures as JSON, and the page of both."""
    from jinja2 import Environment

    prompts = prompts_of(person.asked, f"<{NAME}>")[::PER_PROMPT]
    shown = []
    for row in rows:
        one_each = row.pictures[::PER_PROMPT]
        place = folder / "pictures" / _file_name(row.title)
        place.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(row.pictures):
            Image.fromarray(to_photo(picture)).save(place / f"{number:02}.png")
        shown.append((row, list(map(_address, one_each))))
    data = {"person": person.number, "seconds": round(seconds, 1), "prompts": prompts}
    data["rows"] = [{"title": row.title, "seconds": row.seconds, **row.measures} for row in rows]
    (folder / "scores.json").write_text(json.dumps(data, indent=2, ensure_ascii=False), "utf-8")
    template = resources.files(__package__).joinpath("demo.html.j2").read_text("utf-8")
    page = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            photos=list(map(_address, person.photos)),
            prompts=prompts,
            rows=shown,
            measures=MEASURES,
            count=PROMPTS * PER_PROMPT,
            seconds=seconds,
        )
    )
    (folder / "report.html").write_text(page, "utf-8")
    return {**data, "report": str(folder / "report.html")}


def _address(picture: Tensor) -> str:
    return data_url(Image.fromarray(to_photo(picture)), "PNG")


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
