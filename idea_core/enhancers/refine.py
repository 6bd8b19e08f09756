"""Iterative refinement of a person from a face alone, without gradients.

The base model draws the person that the ID-Enhancer predicts, and the recogniser embeds the drawn faces. The
ID-Enhancer's input is then corrected by their difference to the wanted face, and so on. ReStyle (arXiv 2104.02699) does
this for GANs with trained encoders of images; correcting the face embedding needs no training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..diffusion.backbone import Backbone
from ..errors import FaceError
from ..faces import FaceEngine
from ..faces.embeds import SAME_PERSON
from ..faces.score import embed_images, only, similarity_to_mean
from ..identity.base_ref import BaseModelRef
from ..identity.identity import Identity
from ..images import to_pixels
from ..text.tokenized import tokenize_captions
from .config import RefineConfig
from .drawing import ImageSampler
from .pretrained import PretrainedEnhancer

logger = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """An input of the Enhancer, and what is drawn from it.

    Attributes:
        shown: the input, a face (512,), L2-normalised.
        similarity: mean similarity of the images to the mean embedding; 0 for an image without exactly one face.
        drawn: mean of the drawn faces (512,), L2-normalised; zeros without any.
        images: (P, H, W, 3) in 0…1; None once there is a better candidate.
    """

    shown: Tensor
    similarity: float
    drawn: Tensor
    images: Tensor | None


OnPicture = Callable[[int, Candidate | None], None]
"""Called with the number of images drawn, and the candidate that they complete, if any; it may raise to cancel."""


class Refiner:
    """Refines the people of a pretrained ID-Enhancer.

    Args:
        engine: finds and embeds faces; the one that embedded the person's photos.

    Raises:
        ConfigError: an Enhancer for another family, or a prompt that is too long for the text encoder.
        FaceError: face models without a detector.
    """

    def __init__(
        self,
        backbone: Backbone,
        enhancer: PretrainedEnhancer,
        engine: FaceEngine,
        config: RefineConfig = RefineConfig(),
    ):
        enhancer.require_family(backbone)
        engine.require_detector()
        _warn_of_differences(enhancer, backbone)
        self._backbone, self._enhancer, self._engine, self._config = backbone, enhancer, engine, config
        self._model = enhancer.build(backbone.device)
        self._sampler = ImageSampler(backbone, config)
        prompts = [config.prompts[number % len(config.prompts)] for number in range(config.num_images)]
        self._captions = tokenize_captions(backbone, prompts, enhancer.num_tokens)

    def refine(self, id_embeds: Tensor, on_picture: OnPicture | None = None) -> list[Candidate]:
        """The first candidate, and each that was better than all before; the last one is the best.

        Args:
            id_embeds: `a` (512,), L2-normalised.

        Raises:
            FaceError: no image of the first candidate shows a face.
        """
        on_picture = on_picture or (lambda _drawn, _candidate: None)
        id_embeds, step = id_embeds.float().cpu(), self._config.step_size
        better = [self._draw(id_embeds, id_embeds, 0, on_picture)]
        if not better[0].drawn.any():
            raise FaceError(
                f"a face in {self._config.num_images} images that the base model draws of the person",
                "none",
                "Check that the ID-Enhancer is for this base model, and that the resolution is the base model's own.",
            )
        if better[0].similarity < SAME_PERSON:
            logger.warning(
                "ID-EA: the first images' similarity to the mean embedding is only %.2f. Check that FACE_MODEL is ID "
                "Encode's, and that the ID-Enhancer and the resolution fit this base model.",
                better[0].similarity,
            )
        for done in range(1, self._config.rounds + 1):
            best = better[-1]
            shown = normalize(best.shown + step * (id_embeds - best.drawn), dim=0)
            candidate = self._draw(shown, id_embeds, done * self._config.num_images, on_picture)
            if candidate.drawn.any() and candidate.similarity > best.similarity:
                better[-1] = best._replace(images=None)
                better.append(candidate)
            else:
                step /= 2
        return better

    def identity(self, name: str, id_embeds: Tensor, better: Sequence[Candidate], **checkpoint: str) -> Identity:
        """The person of the best candidate.

        Args:
            better: result of `refine`.
            checkpoint: `base_checkpoint` and `base_hash` of the base model that drew it.
        """
        person = self._enhancer.identity(name, id_embeds, better[-1].shown)
        likeness = [[number, round(candidate.similarity, 4)] for number, candidate in enumerate(better)]
        training = {**person.training, "refine": self._config.as_dict(), "report": {"likeness": likeness}}
        ref = person.base_ref
        checkpoint = {"base_checkpoint": ref.base_checkpoint, "base_hash": ref.base_hash, **checkpoint}
        base_ref = BaseModelRef.of(self._backbone, ref.heads, ref.beta, **checkpoint)
        return replace(person, training=training, base_ref=base_ref)

    @torch.no_grad()
    def _draw(self, shown: Tensor, id_embeds: Tensor, done: int, on_picture: OnPicture) -> Candidate:
        """Draw the Enhancer's prediction for a face, always with the same prompts and noise, after `done` images."""
        config, count = self._config, len(self._captions)
        inputs = shown.to(self._backbone.device).expand(count, -1)
        seeds = [(config.seed + number) % 2**64 for number in range(count)]
        images = self._sampler.draw_faces(
            self._model, self._captions, inputs, seeds, lambda drawn: on_picture(done + drawn, None)
        )
        faces = embed_images(self._engine, list(to_pixels(images)), only)
        similarity = float(similarity_to_mean(faces, id_embeds).mean())
        candidate = Candidate(shown, similarity, normalize(faces.sum(0), dim=0), images)
        on_picture(done + count, candidate)
        return candidate


def _warn_of_differences(enhancer: PretrainedEnhancer, backbone: Backbone) -> None:
    """Warn if a base model differs from the one of an Enhancer's training."""
    if enhancer.prediction != backbone.schedule.prediction:
        logger.warning(
            "ID-EA: the ID-Enhancer was trained for a checkpoint of %s prediction, and this one has %s.",
            enhancer.prediction,
            backbone.schedule.prediction,
        )
    layer = enhancer.base.text_layer(backbone.clip_layer)
    if enhancer.text_layer != layer:
        logger.warning(
            "ID-EA: the ID-Enhancer was trained on CLIP layer %s, this CLIP gives layer %s; use CLIP Set Last Layer "
            "(--clip-layer) as in training.",
            enhancer.text_layer,
            layer,
        )
