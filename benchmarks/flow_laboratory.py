"""Trials on the flow-matching base model: methods of ID-EA, LoRAs beside them, and two people at once."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from idea_core.diffusion.backbone import Backbone
from idea_core.families.mini_flow import MINI_FLOW
from idea_core.headless.diffusers import FlowBackbone, people_of
from idea_core.headless.diffusers.generate import generate_each
from idea_core.headless.jobs import ModelSource
from idea_core.headless.jobs.trial import Trial
from idea_core.identity.identity import Identity
from idea_core.training.config import TrainConfig
from idea_core.training.methods import Method
from idea_core.training.person import PersonModel
from idea_core.training.start import NamesStart, build_person
from idea_core.training.trainer import Trainer
from world3d.flow import pairs
from world3d.judge_comparison import similarity
from world3d.names import FIRST_NAMES, LAST_NAMES, known_names
from world3d.scenes import SIZE
from world3d.somebody import TRUE, Somebody
from world3d.world import read

from .study import Cell
from .study3d import BOUNDS, DRAWING, Laboratory

LORA = "lora"
TARGETS = ["attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"]
RANK = 4  # of LoRAs, as of a person's change to keys and values
EACH = 3  # images with two people, in either order
JUDGES = ("pack", "dlib", "hse")
BARE = {"adapter_lr": 0.0, "enhancer_lr": None, "kv_lr": 0.0}
KV_LR_SCALE = MINI_FLOW.transformer.kv_lr_scale if MINI_FLOW.transformer else 1.0
TOGETHER = replace(DRAWING, width=pairs.WIDTH, height=SIZE)


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


@dataclass(frozen=True)
class Learned:
    """A person whom a trial learned, and a LoRA if it learned one."""

    identity: Identity
    lora: Mapping[str, Tensor] | None = None


class FlowLaboratory(Laboratory):
    """The laboratory on the flow-matching base model, where a LoRA can be trained too.

    A LoRA is trained as users do: on all projections of the attention, by text with a rare name.
    """

    drawing_dtype = None

    def __init__(self, work: Path, networks: Path, arms: Mapping[str, Method], base: Path, enhancer: Path | None):
        super().__init__(work, networks, arms)
        self.model, self.enhancer = ModelSource(base, "fp32", "cpu"), enhancer

    def _trial(self, cell: Cell, somebody: Somebody, folder: Path) -> Trial:
        """With the rate of keys and values that the cell says; of the setting, such models take a tenth."""
        if "kv_lr" in cell.settings:
            rate = cell.settings["kv_lr"] / KV_LR_SCALE
            cell = replace(cell, settings={**cell.settings, "kv_lr": rate})
        return super()._trial(cell, somebody, folder)

    def draw(self, cell: Cell, somebody: Somebody, folder: Path) -> tuple[list[Path], float]:
        if cell.arm != LORA:
            return super().draw(cell, somebody, folder)
        _ = self.model.load(), self.world.engine  # loading counts for no method
        start = time.perf_counter()
        learned = self.learn_lora(cell, somebody)
        seconds = time.perf_counter() - start
        return self.draw_people([learned], somebody.prompts(learned.identity.trigger), folder), seconds

    def learn(self, cell: Cell, somebody: Somebody, folder: Path) -> Learned:
        if cell.arm == LORA:
            return self.learn_lora(cell, somebody)
        return Learned(self._trial(cell, somebody, folder).job.run())

    def learn_lora(self, cell: Cell, somebody: Somebody) -> Learned:
        """A LoRA of the rank of the person's change to keys and values, on the same photos, captions and draws."""
        from peft import get_peft_model_state_dict

        pipeline, seen = self.model.load(), somebody.prepared(self.world)
        backbone = FlowBackbone(pipeline)
        trigger = triggers(backbone)[cell.person]
        config = TrainConfig(
            steps=cell.steps, seed=cell.person, space="input", start="cross", **{**BARE, "token_lr": 0.0}
        )
        transformer = pipeline.transformer
        torch.manual_seed(cell.person)  # peft draws a half of each matrix
        transformer.add_adapter(_lora_config(), LORA)
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
            state = get_peft_model_state_dict(transformer, adapter_name=LORA)
            kept = {key: value.clone() for key, value in state.items()}
            return Learned(run.identity(f"person{cell.person:02}"), kept)
        finally:
            transformer.delete_adapters([LORA])

    def draw_people(
        self, people: Sequence[Learned], prompts: Sequence[str], folder: Path, drawing=DRAWING
    ) -> list[Path]:
        """An image of each prompt while all these people, and their LoRAs, are applied."""
        from peft import set_peft_model_state_dict

        pipeline, names = self.model.load(), []
        transformer = pipeline.transformer
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{number:03}.png" for number in range(len(prompts))]
        try:
            for number, person in enumerate(people):
                if person.lora is not None:
                    names.append(f"{LORA}{number}")
                    transformer.add_adapter(_lora_config(), names[-1])
                    set_peft_model_state_dict(transformer, dict(person.lora), adapter_name=names[-1])
            if names:
                transformer.set_adapters(names)
            transformer.requires_grad_(False)
            applied = people_of(pipeline, [person.identity for person in people])
            images: Iterator[Image.Image] = generate_each(pipeline, applied, prompts, drawing)
            for file, image in zip(files, images):
                image.save(file)
            return files
        finally:
            if names:
                transformer.delete_adapters(names)

    def pair(self, cell: Cell) -> dict[str, Any]:
        """Means over two people who are applied at once: each is asked for alone, then both in one prompt.

        "own" is likeness to whom an image, or its half, should show, and "bleed" likeness to the other of the two.
        """
        both = [self.somebody(number, cell.photos) for number in (cell.person, cell.person + 1)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if cell.arm in BOUNDS:
                together, result = [_true_pairs(both), _true_pairs(both[::-1])], {}
            else:
                people = [
                    self.learn(replace(cell, person=cell.person + place), one, folder / f"{place}")
                    for place, one in enumerate(both)
                ]
                result = self._alone(both, people, folder)
                together = [self._drawn_together(people[::step], folder / f"both{step}") for step in (1, -1)]
        shown = [  # of each person: the halves that should show them
            [half for place, images in ((number, together[0]), (1 - number, together[1])) for half in images[place]]
            for number in range(2)
        ]
        result |= self._likeness("together", both, shown)
        return self.line(cell, result, 0.0)

    def _alone(self, both: Sequence[Somebody], people: Sequence[Learned], folder: Path) -> dict[str, float]:
        """Each is asked for alone."""
        files = [
            self.draw_people(people, somebody.prompts(person.identity.trigger), folder / f"alone{place}")
            for place, (somebody, person) in enumerate(zip(both, people))
        ]
        images = [list(map(read, some)) for some in files]
        obedience = [somebody.measure(some, self.world)["obedience"] for somebody, some in zip(both, images)]
        return {"obedience": float(np.mean(obedience))} | self._likeness("alone", both, images)

    def _drawn_together(self, people: Sequence[Learned], folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Left and right halves of images of both people in this order."""
        prompt = pairs.caption(*(person.identity.trigger for person in people))
        files = self.draw_people(people, [prompt] * EACH, folder, TOGETHER)
        left, right = zip(*(pairs.halves(read(file)) for file in files))
        return list(left), list(right)

    def _likeness(
        self, title: str, both: Sequence[Somebody], shown: Sequence[Sequence[np.ndarray]]
    ) -> dict[str, float]:
        """By each judge: means over both people of likeness to oneself and to the other; no face counts as 0."""
        seen = [self.eye.embed(list(images)) for images in shown]
        known = [self._seen_once(somebody.folder) for somebody in both]
        result = {}
        for judge in JUDGES:
            for kind, other in (("own", 0), ("bleed", 1)):
                values = [similarity(seen[place][judge], known[(place + other) % 2][judge]) for place in range(2)]
                result[f"{title} {kind} {judge}"] = float(np.mean(values))
        return result


def _true_pairs(both: Sequence[Somebody]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Left and right halves of true pictures beside each other."""
    pictures = [sorted((somebody.folder / TRUE).iterdir())[:EACH] for somebody in both]
    left, right = ([pairs.middle(read(file)) for file in files] for files in pictures)
    return left, right


def _lora_config():
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS)


def triggers(backbone: Backbone) -> list[str]:
    """Names that nobody has, of two tokens."""
    known = set(known_names())
    names = (f"{first} {last}" for first, last in itertools.product(FIRST_NAMES, LAST_NAMES))
    fitting = (
        name for name in names if name not in known and all(len(ids) == 2 for ids in backbone.tokenize(name).values())
    )
    return list(itertools.islice(fitting, 0, 40 * 7, 7))
