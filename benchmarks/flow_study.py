"""The study on a flow-matching transformer that reads a language model: what of ID-EA holds there, beside LoRAs.

    python -m benchmarks.flow_study search --base work/flow/base --networks work/faces
    python -m benchmarks.flow_study run --base work/flow/base --networks work/faces
    python -m benchmarks.flow_study bleed --base work/flow/base --networks work/faces

The base model is that of `world3d.flow`, the people and judges are those of `benchmarks.study3d`, and so is how a
command goes on.  A LoRA is trained as users do: on all projections of the attention, by text with a rare name.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor

from idea_core.diffusion.backbone import Backbone
from idea_core.headless.diffusers import FlowBackbone, people_of
from idea_core.headless.diffusers.generate import generate_each
from idea_core.headless.jobs import ModelSource
from idea_core.identity.identity import Identity
from idea_core.training.config import TrainConfig
from idea_core.training.methods import METHODS, Method
from idea_core.training.person import PersonModel
from idea_core.training.start import NamesStart, build_person
from idea_core.training.trainer import Trainer
from world3d.names import FIRST_NAMES, LAST_NAMES, known_names

from .study import Cell, add_lines, choose, grid_cells, read_lines
from .study3d import DRAWING, RESULTS, SHORT, Laboratory, Somebody, options

SEARCH, REPORT, BLEED = (RESULTS / f"flow-{name}.jsonl" for name in ("search", "run", "bleed"))
REPORTED, SEARCHED = range(32), range(32, 34)  # people
PAIRS = [(number, number + 1) for number in range(0, 16, 2)]
LONG = 320  # steps
TARGETS = ["attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"]
BOUNDS = ("true", "other")

_BARE = {"adapter_lr": 0.0, "enhancer_lr": None, "kv_lr": 0.0}
_ID_EA = METHODS["id-ea"]


def _variant(title: str, space: str, **settings: Any) -> Method:
    return _ID_EA.changed(title, space=space, **settings)


ARMS: Mapping[str, Method] = {
    "ti-in": METHODS["ti"].changed("Textual Inversion", space="input"),
    "ti-out": METHODS["ti"].changed("Textual Inversion in output space", space="output"),
    "axes-in": _variant("names' axes", "input", **_BARE),
    "axes-out": _variant("names' axes in output space", "output", **_BARE),
    "in": _variant("ID-EA in input space", "input", kv_scope="person"),
    "out": _variant("ID-EA in output space", "output", kv_scope="person"),
    "in: no adapter": _variant("no Adapter", "input", kv_scope="person", adapter_lr=0.0, enhancer_lr=None),
    "out: no adapter": _variant("no Adapter", "output", kv_scope="person", adapter_lr=0.0, enhancer_lr=None),
    "in: no kv": _variant("no K/V", "input", kv_lr=0.0),
    "out: no kv": _variant("no K/V", "output", kv_lr=0.0),
    "in: text": _variant("K/V at all text", "input", kv_scope="text"),
    "out: text": _variant("K/V at all text", "output", kv_scope="text"),
    "in: whole": _variant("K/V everywhere", "input", kv_scope="whole"),
    "out: whole": _variant("K/V everywhere", "output", kv_scope="whole"),
    "seen": METHODS["enhancer"],
}
LORA = "lora"
_TOKENS, _AXES = (3e-3, 1e-2, 3e-2, 1e-1), (0.03, 0.1, 0.3, 1.0)
_KV = {"axes_lr": (0.1, 0.3), "kv_lr": (2e-3, 5e-3)}
GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "ti-in": {"token_lr": _TOKENS},
    "ti-out": {"token_lr": tuple(10 * rate for rate in _TOKENS)},
    "axes-in": {"axes_lr": _AXES},
    "axes-out": {"axes_lr": _AXES},
    "in": _KV,
    "out": _KV,
    LORA: {"kv_lr": (3e-4, 1e-3, 3e-3, 1e-2)},  # of all its matrices
}
LONG_GRIDS = {"ti-in": {"token_lr": (1e-2, 3e-2, 1e-1)}, LORA: {"kv_lr": (3e-4, 1e-3, 3e-3)}}
"""Rates that are tried for `LONG` steps."""


@dataclass(frozen=True)
class Trigger(NamesStart):
    """Pseudo-tokens that are a name nobody has, and stay it."""

    name: str = ""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        ids = backbone.tokenize(self.name)
        free = {key: backbone.embed_tokens(key, own) for key, own in ids.items()}
        return build_person(backbone, id_embeds, config, names, free=free)


class FlowLaboratory(Laboratory):
    """The laboratory on the flow-matching base model, where a LoRA can be trained too."""

    drawing_dtype = None

    def __init__(self, work: Path, networks: Path, base: Path, enhancer: Path | None):
        super().__init__(work, networks, ARMS)
        self.model, self.enhancer = ModelSource(base, "fp32", "cpu"), enhancer

    def draw(self, cell: Cell, somebody: Somebody, folder: Path) -> tuple[list[Path], float]:
        if cell.arm != LORA:
            return super().draw(cell, somebody, folder)
        _ = self.model.load(), self.world.engine  # loading counts for no method
        start = time.perf_counter()
        identity, state = self.learn_lora(cell, somebody)
        seconds = time.perf_counter() - start
        return self.draw_loras([identity], [state], somebody, identity, folder), seconds

    def learn(self, cell: Cell, somebody: Somebody, folder: Path) -> tuple[Identity, Mapping[str, Tensor] | None]:
        """A person, and a LoRA if the arm is one."""
        if cell.arm == LORA:
            return self.learn_lora(cell, somebody)
        return self._trial(cell, somebody, folder).job.run(), None

    def learn_lora(self, cell: Cell, somebody: Somebody) -> tuple[Identity, dict[str, Tensor]]:
        """A LoRA of the rank of the person's K/V deltas, on the same photos, captions and draws."""
        from peft import LoraConfig, get_peft_model_state_dict

        pipeline, seen = self.model.load(), somebody.prepared(self.world)
        backbone = FlowBackbone(pipeline)
        trigger = triggers(backbone)[cell.person]
        config = TrainConfig(
            steps=cell.steps, seed=cell.person, space="input", start="cross", **{**_BARE, "token_lr": 0.0}
        )
        transformer = pipeline.transformer
        torch.manual_seed(cell.person)  # peft draws a half of each matrix
        transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS), LORA)
        try:
            names = known_names()
            run = Trainer.of(backbone, seen.photos, seen.embeds.mean, config, names, start=Trigger(trigger))
            trained = [part for name, part in transformer.named_parameters() if ".lora_" in name]
            for part in trained:
                part.requires_grad_()
            optimizer = torch.optim.AdamW(trained, lr=cell.settings["kv_lr"], weight_decay=1e-2)
            for _ in range(cell.steps):
                optimizer.zero_grad(set_to_none=True)
                run._gradients(run.sampler.draw())
                optimizer.step()
            state = {
                key: value.clone() for key, value in get_peft_model_state_dict(transformer, adapter_name=LORA).items()
            }
            return run.identity(f"person{cell.person:02}"), state
        finally:
            transformer.delete_adapters([LORA])

    def draw_loras(
        self,
        identities: Sequence[Identity],
        states: Sequence[Mapping[str, Tensor]],
        somebody: Somebody,
        shown: Identity,
        folder: Path,
    ) -> list[Path]:
        """Images of a person while the LoRAs of several are loaded."""
        from peft import LoraConfig, set_peft_model_state_dict

        transformer, names = self.model.load().transformer, []
        try:
            for number, state in enumerate(states):
                names.append(f"{LORA}{number}")
                transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS), names[-1])
                set_peft_model_state_dict(transformer, dict(state), adapter_name=names[-1])
            if names:
                transformer.set_adapters(names)
            transformer.requires_grad_(False)
            return self.draw_people(identities, somebody, shown, folder)
        finally:
            if names:
                transformer.delete_adapters(names)

    def draw_people(
        self, identities: Sequence[Identity], somebody: Somebody, shown: Identity, folder: Path
    ) -> list[Path]:
        """Images of one person while several are applied."""
        pipeline = self.model.load()
        people, prompts = people_of(pipeline, identities), somebody.prompts(shown.trigger)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{number:03}.png" for number in range(len(prompts))]
        images: Iterator[Image.Image] = generate_each(pipeline, people, prompts, DRAWING)
        for file, image in zip(files, images):
            image.save(file)
        return files

    def pair(self, cell: Cell) -> dict[str, Any]:
        """Two people are applied at once, and one of them is asked for: likeness to each."""
        both = [self.somebody(number, cell.photos) for number in (cell.person, cell.person + 1)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            learned = [
                self.learn(replace(cell, person=cell.person + place), one, folder / f"{place}")
                for place, one in enumerate(both)
            ]
            identities, states = [one for one, _ in learned], [state for _, state in learned if state]
            result: dict[str, float] = {}
            for place, somebody in enumerate(both):
                files = self.draw_loras(identities, states, somebody, identities[place], folder / f"drawn{place}")
                own, other = self.measure(somebody, files), self.measure(_asked_as(both[1 - place], somebody), files)
                for key in ("identity", "second", "pack", "dlib", "hse"):
                    result[f"{key} {place}"], result[f"bleed {key} {place}"] = own[key], other[key]
                result[f"obedience {place}"] = own["obedience"]
        means = {
            key.removesuffix(" 0"): (value + result[key[:-1] + "1"]) / 2
            for key, value in result.items()
            if key.endswith(" 0")
        }
        return self.line(cell, means, 0.0)


def _asked_as(somebody: Somebody, other: Somebody) -> Somebody:
    """A person with another one's prompts, for measures of the other's images."""
    changed = replace(somebody)
    changed.__dict__["person"] = replace(somebody.person, prompts=other.person.prompts)
    return changed


def triggers(backbone: Backbone) -> list[str]:
    """Names that nobody has, of two tokens."""
    known = set(known_names())
    names = (f"{first} {last}" for first, last in itertools.product(FIRST_NAMES, LAST_NAMES))
    fitting = (
        name for name in names if name not in known and all(len(ids) == 2 for ids in backbone.tokenize(name).values())
    )
    return list(itertools.islice(fitting, 0, 40 * 7, 7))


def searched_cells() -> Iterator[Cell]:
    return grid_cells(SEARCHED, [*((steps, GRIDS) for steps in SHORT), (LONG, LONG_GRIDS)])


def rates_of(arm: str, steps: int, chosen: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Mapping[str, float]:
    """The rates that the search chose for an arm; a part takes those of the whole that it has."""
    whole = arm.split(": ")[0]
    rates = chosen[str(steps)].get(whole, {})
    return rates if arm == LORA else {key: value for key, value in rates.items() if ARMS[arm].settings.get(key) != 0.0}


def reported_cells(chosen: Mapping[str, Mapping[str, Mapping[str, float]]], enhancer: bool) -> Iterator[Cell]:
    for person in REPORTED:
        for arm in BOUNDS:
            yield Cell(arm, person, 0, 4)
        if enhancer:
            yield Cell("seen", person, 0, 4)
        for arm, steps in itertools.product(GRIDS, SHORT):
            yield Cell(arm, person, steps, 4, rates_of(arm, steps, chosen))
        for arm in ARMS:
            if ": " in arm:
                yield Cell(arm, person, SHORT[1], 4, rates_of(arm, SHORT[1], chosen))
    for person, arm in itertools.product(REPORTED, ("ti-in", LORA)):
        yield Cell(arm, person, LONG, 4, rates_of(arm, LONG, chosen))


def paired_cells(chosen: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[Cell]:
    for (first, _), arm in itertools.product(PAIRS, (LORA, "in", "out", "in: text", "in: whole")):
        yield Cell(arm, first, SHORT[1], 4, rates_of(arm, SHORT[1], chosen))


@click.group()
def study() -> None:
    """Likeness and bleeding on a flow-matching transformer, beside LoRAs."""


def on_flow(command):
    command = click.option("--enhancer", type=click.Path(exists=True, path_type=Path), help="A trained ID-Enhancer.")(
        command
    )
    return options(click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)(command))


@study.command()
@on_flow
def search(networks: Path, work: Path, shard: str, threads: int, base: Path, enhancer: Path | None) -> None:
    """Try rates on people who are not reported."""
    torch.set_num_threads(threads)
    add_lines(searched_cells(), SEARCH, shard, FlowLaboratory(work, networks, base, enhancer).trial)


@study.command()
@on_flow
def run(networks: Path, work: Path, shard: str, threads: int, base: Path, enhancer: Path | None) -> None:
    """Measure every cell on the people who are reported."""
    torch.set_num_threads(threads)
    cells = reported_cells(choose(read_lines(SEARCH), GRIDS), enhancer is not None)
    add_lines(cells, REPORT, shard, FlowLaboratory(work, networks, base, enhancer).trial)


@study.command()
@on_flow
def bleed(networks: Path, work: Path, shard: str, threads: int, base: Path, enhancer: Path | None) -> None:
    """Apply two people at once and ask for one."""
    torch.set_num_threads(threads)
    cells = paired_cells(choose(read_lines(SEARCH), GRIDS))
    add_lines(cells, BLEED, shard, FlowLaboratory(work, networks, base, enhancer).pair)


if __name__ == "__main__":
    study()
