"""A person from a face alone, looked at and corrected: iterative refinement without gradients.

An Enhancer that has seen people answers at once, and never sees what becomes of its answer. Here the base model draws
the person, the recogniser says whose face that is, and the Enhancer is shown a face that differs from the wanted one
the other way; then again. It is what ReStyle (arXiv 2104.02699) does with encoders for GANs, on the face embedding in
place of the picture, so that nothing has to be trained for it, and nothing has gradients.
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
from ..identity.identity import Identity
from ..images import to_pixels
from ..text.tokenized import tokenize_captions
from .config import RefineConfig
from .drawing import ImageSampler
from .model import face_condition
from .pretrained import PretrainedEnhancer

logger = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """What becomes of a face that the Enhancer is shown.

    Attributes:
        shown: that face (512,), L2-normalised.
        similarity: to the mean embedding, on average over the images; an image without exactly one face counts as 0.
        drawn: mean of the drawn faces (512,), L2-normalised; zeros without any.
        images: (P, H, W, 3) in 0…1; None of a look that a better one has followed.
    """

    shown: Tensor
    similarity: float
    drawn: Tensor
    images: Tensor | None


OnPicture = Callable[[int, Candidate | None], None]
"""Called with how many pictures were drawn, and the look that the last ones complete, if they do; it may raise to
cancel."""


class Refiner:
    """An Enhancer, the base model that it was trained for, and a recogniser.

    Args:
        engine: finds faces in the pictures and embeds them, as it did with the person's photos.

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
        self._sampler = ImageSampler(
            backbone, config.resolution, config.sampling_steps, config.guidance, config.sampling_batch_size
        )
        prompts = [config.prompts[number % len(config.prompts)] for number in range(config.num_images)]
        self._captions = tokenize_captions(backbone, prompts, enhancer.num_tokens)

    def refine(self, id_embeds: Tensor, on_picture: OnPicture | None = None) -> list[Candidate]:
        """The first look at a person, and those that were better than all before: the last one is the best.

        Args:
            id_embeds: `a` (512,), L2-normalised.

        Raises:
            FaceError: no picture of the first look shows a face.
        """
        on_picture = on_picture or (lambda _drawn, _look: None)
        id_embeds, step = id_embeds.float().cpu(), self._config.step_size
        better = [self._look(id_embeds, id_embeds, on_picture)]
        if not better[0].drawn.any():
            raise FaceError(
                f"a face in {self._config.num_images} pictures that the base model draws of the person",
                "none",
                "See that the ID-Enhancer is one for this base model, and the resolution the base model's own.",
            )
        if better[0].similarity < SAME_PERSON:
            logger.warning(
                "ID-EA: the first images' similarity to the mean embedding is only %.2f. See that FACE_MODEL is ID "
                "Encode's, and the ID-Enhancer and the resolution are this base model's.",
                better[0].similarity,
            )
        for done in range(1, self._config.rounds + 1):
            best, drawn = better[-1], done * self._config.num_images
            shown = normalize(best.shown + step * (id_embeds - best.drawn), dim=0)
            look = self._look(shown, id_embeds, lambda count, look, drawn=drawn: on_picture(drawn + count, look))
            if look.drawn.any() and look.similarity > best.similarity:
                better[-1] = best._replace(images=None)
                better.append(look)
            else:
                step /= 2
        return better

    def identity(self, name: str, id_embeds: Tensor, looks: Sequence[Candidate], **provenance: str) -> Identity:
        """The person as in the last of the looks that `refine` found better and better.

        Args:
            provenance: `base_checkpoint` and `base_hash` of the base model that drew it.
        """
        person = self._enhancer.identity(name, id_embeds, looks[-1].shown)
        likeness = [[number, round(look.similarity, 4)] for number, look in enumerate(looks)]
        training = {**person.training, "refine": self._config.as_dict(), "report": {"likeness": likeness}}
        base_ref = replace(
            person.base_ref,
            prediction=self._backbone.schedule.prediction,
            clip_layer=self._backbone.clip_layer,
            **provenance,
        )
        return replace(person, training=training, base_ref=base_ref)

    @torch.no_grad()
    def _look(self, shown: Tensor, id_embeds: Tensor, on_picture: OnPicture) -> Candidate:
        """Draw whom the Enhancer takes a face for, always from the same prompts and noise."""
        config, count = self._config, len(self._captions)
        faces = shown.to(self._backbone.device).expand(count, -1)
        condition = face_condition(self._backbone, self._model, self._captions, faces)
        seeds = [(config.seed + number) % 2**64 for number in range(count)]
        images = self._sampler.draw_conditions(condition, seeds, lambda drawn: on_picture(drawn, None))[1]
        drawn = embed_images(self._engine, to_pixels(images), only)
        similarity = float(similarity_to_mean(drawn, id_embeds).mean())
        look = Candidate(shown, similarity, normalize(drawn.sum(0), dim=0), images)
        on_picture(count, look)
        return look


def _warn_of_differences(enhancer: PretrainedEnhancer, backbone: Backbone) -> None:
    """Between a base model and the one of an Enhancer's training."""
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
