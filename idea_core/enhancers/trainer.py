"""The training of an `EnhancerModel`: for one frozen base model it learns which person a face embedding shows.

The base model is its own teacher, through images that it drew of people whom it knows by name. Up to three objectives
follow each other: text, denoising, likeness (`objectives.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..diffusion.backbone import Backbone
from ..diffusion.memory import with_less_memory
from ..errors import ConfigError, DivergedError
from ..families import BASE_MODELS
from ..method.anchor import ROWS, Anchor, mean_name, mean_rows
from ..training.likeness_loss import LikenessLoss
from ..training.loop import TrainingLoop, adamw, not_finite
from .config import EnhancerTrainConfig
from .dataset import PeoplePictures
from .model import EnhancerModel
from .objectives import DenoisingObjective, LikenessObjective, Objective, RowsObjective, TextObjective
from .pretrained import PretrainedEnhancer
from .training_data import PeopleBatch, TrainingData


class EnhancerTrainer(TrainingLoop):
    """The training of an `EnhancerModel` on one backbone.

    Args:
        start: an Enhancer to continue, which keeps its anchor, heads and beta; or the anchor of a new one.
        likeness: loss of the last `likeness_steps`; needed where there are any.

    Raises:
        ConfigError: `likeness_steps` without `likeness`, or a start for another family.
        TrainingError: text steps without a name that has as many tokens as a person.

    For a language model all steps train by text.
    """

    def __init__(
        self,
        backbone: Backbone,
        start: Anchor | PretrainedEnhancer,
        pictures: PeoplePictures,
        config: EnhancerTrainConfig = EnhancerTrainConfig(),
        likeness: LikenessLoss | None = None,
    ):
        if config.likeness_steps and likeness is None:
            raise ConfigError("a LikenessLoss", "none", "Give one, or set likeness_steps to 0.")
        self.pictures, self.config = pictures, config
        if isinstance(start, PretrainedEnhancer):
            start.require_family(backbone)
            self.model = start.build(backbone.device).requires_grad_()
        else:
            self.model = _seeded(backbone, start, pictures, config)
        optimizer = adamw(self.model.parameters(), backbone.device, config.lr, config.weight_decay)
        generator = torch.Generator().manual_seed(config.seed)
        super().__init__(backbone, optimizer, generator, config.steps, config.text_batch_size)
        self.data = TrainingData(backbone, self.model, pictures, config, generator)
        self.objectives = self._objectives(likeness)

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()  # the model's output is the backbone's input; the backbone does not change

    def drawn_step(self) -> Tensor:
        objective, done = self._now()
        if not done:  # Adam's moments of another objective do not fit this one
            self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] = objective.lr_after(done)
        batch = objective.draw()
        loss = with_less_memory(self, lambda: self._gradients(objective, batch))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def problem(self, losses: Sequence[float], read: int) -> str:
        return not_finite(losses, read, self.weights())  # objectives have losses of different sizes

    def diverged(self, problem: str) -> DivergedError:
        return DivergedError("a finite loss", problem, f"Lower {self._now()[0].lr_setting}.")

    def finish_step(self, step: int) -> None:
        super().finish_step(step)
        if not self._now()[1]:  # an error is to name the rate of the objective that it is of
            self.read_losses()

    def _objectives(self, likeness: LikenessLoss | None) -> list[Objective]:
        config, data = self.config, self.data
        if self.model.read is not None:
            return [RowsObjective(config.steps, config.text_lr, data)]
        text_steps = min(config.text_steps, config.steps - config.likeness_steps)
        denoising_steps = config.steps - config.likeness_steps - text_steps
        objectives: list[Objective] = []
        if text_steps:
            objectives.append(TextObjective(text_steps, config.text_lr, data))
        if denoising_steps:
            objectives.append(DenoisingObjective(denoising_steps, config.lr, data))
        if config.likeness_steps and likeness is not None:
            objectives.append(LikenessObjective(config.likeness_steps, config.likeness_lr, data, likeness))
        return objectives

    def _now(self) -> tuple[Objective, int]:
        """The objective of the next step, and the number of its steps that are done."""
        done = self.steps_done
        for objective in self.objectives[:-1]:
            if done < objective.steps:
                return objective, done
            done -= objective.steps
        return self.objectives[-1], done

    def _gradients(self, objective: Objective, batch: PeopleBatch) -> Tensor:
        """Gradients of a batch, in parts that fit into memory; its loss, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        total, count = torch.zeros((), device=self.backbone.device), len(batch)
        self.micro_batch = min(self.micro_batch, count)
        for part in batch.parts(self.micro_batch):
            loss = objective.loss(part) * (len(part) / count)
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total


def _seeded(backbone: Backbone, anchor: Anchor, pictures: PeoplePictures, config: EnhancerTrainConfig) -> EnhancerModel:
    """An untrained model: every face gives the mean name."""
    n, base = next(iter(anchor.values())).shape[0], BASE_MODELS[backbone.base_model]
    names, read = pictures.names, None
    start, scale = mean_name(backbone, names, n)
    if ROWS in anchor:
        read, (start, scale) = start, mean_rows(backbone, names, n)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        model = EnhancerModel(anchor, start, scale, config.heads, config.beta, base.module_width(), read)
    return model.to(backbone.device)
