"""The training of an ID-Enhancer, from images to a file, and its validation, for both front ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.nn.functional import normalize

from ..diffusion.backbone import Backbone
from ..errors import ConfigError, TrainingError
from ..faces import FaceEngine
from ..faces.score import embed_images, only, similarities
from ..faces.torch_recogniser import TorchRecogniser
from ..families import BASE_MODELS
from ..files.digest import digest_of
from ..identity.base_ref import load_if_same
from ..images import to_pixels
from ..method.anchor import enhancer_anchor
from ..text.tokenized import tokenize_captions
from ..training.likeness_loss import LikenessLoss
from ..training.output import Output
from ..training.run import OnProgress, TrainingRun
from ..training.stopping import Preview, Watch
from ..version import __version__
from .config import EnhancerTrainConfig
from .dataset import PeopleDataset, PeoplePictures
from .drawing import ImageSampler
from .model import EnhancerModel
from .pretrained import PretrainedEnhancer
from .trainer import EnhancerTrainer

logger = logging.getLogger(__name__)

NUM_TOKENS = 2  # pseudo-tokens of a person
VAL_PEOPLE, VAL_IMAGES = 8, 4  # people of a validation during a training, and images of each person


@dataclass(frozen=True, eq=False)
class EnhancerSpec:
    """What an Enhancer is trained on, and how.

    Attributes:
        validate_every: as in `EnhancerRunConfig`.
        start: an Enhancer to continue.
    """

    dataset: PeopleDataset
    config: EnhancerTrainConfig = EnhancerTrainConfig()
    validate_every: int = 0
    start: PretrainedEnhancer | None = None

    @property
    def resolved(self) -> EnhancerTrainConfig:
        """The settings, with what `start` determines."""
        if self.start is None:
            return self.config
        return self.config.continued(self.start.base_ref.heads, self.start.base_ref.beta)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that the result depends on, as far as it is known before the images are drawn."""
        people = self.dataset.config
        selection = people.names, people.num_synthetic, people.min_similarity, people.val_fraction, self.validate_every
        settings = sorted(self.resolved.as_dict().items())
        start = self.start.digest() if self.start else ""
        return digest_of(self.dataset.fingerprint, start, str(settings), str(selection), __version__)


def require_trainable(
    backbone: Backbone,
    engine: FaceEngine,
    config: EnhancerTrainConfig,
    start: PretrainedEnhancer | None,
    base_checkpoint: str = "",
    base_hash: str = "",
) -> None:
    """Raise what would stop a training, before hours are spent on its images.

    Args:
        start: an Enhancer to continue.
        base_checkpoint, base_hash: file name and SHA-256 of the base checkpoint; "" if unknown.

    Raises:
        ConfigError: likeness steps for a language model, which learns by text alone; or a start for another family.
        FaceError: face models without a detector, or for likeness steps without a usable recogniser.
    """
    engine.require_detector()
    base = BASE_MODELS[backbone.base_model]
    if base.transformer and config.likeness_steps:
        raise ConfigError(f"likeness_steps 0 on {base.title}", str(config.likeness_steps), "Set likeness_steps to 0.")
    if start:
        start.require_family(backbone)
        start.warn_of_other_base("the ID-Enhancer to start from", base_hash, base_checkpoint)
    if config.likeness_steps:
        TorchRecogniser(engine.recogniser_file)


def train_enhancer(
    backbone: Backbone,
    spec: EnhancerSpec,
    engine: FaceEngine,
    output: Output,
    on_progress: OnProgress | None = None,
) -> PretrainedEnhancer:
    """Train on the images in the folder, and save. A training of the same inputs that broke off is resumed.

    Args:
        output: the people with usable images complete its fingerprint. An existing file of exactly these inputs is the
            result.

    Raises:
        TrainingError: too few people, or a loss that is not finite.
    """
    config, pictures = spec.resolved, spec.dataset.pictures()
    unseen = _validation_pictures(spec.dataset) if spec.validate_every else None
    fingerprint = digest_of(spec.fingerprint, *pictures.names, "held out:", *(unseen.names if unseen else []))
    known = load_if_same(PretrainedEnhancer.load, output.path, fingerprint)
    if known:
        return known
    likeness = None
    if config.likeness_steps:
        likeness = LikenessLoss(backbone, engine, config.likeness_sampling_steps, config.likeness_guidance)
    start = spec.start or enhancer_anchor(backbone, pictures.names, NUM_TOKENS)
    trainer = EnhancerTrainer(backbone, start, pictures, config, likeness)
    watch = None
    if unseen:

        def draw() -> Preview:
            rows = validate(spec.dataset, unseen, backbone, engine, trainer.model, VAL_PEOPLE)
            return Preview(score=float(np.mean([row["mean_similarity"] for row in rows])))

        watch = Watch(spec.validate_every, draw)
    with TrainingRun(trainer, output.state_file, fingerprint, output.save_every, watch) as run:
        if output.resume:
            run.resume()
        run.run(on_progress)
        record: dict[str, Any] = {
            **config.as_dict(),
            "start": spec.start.digest() if spec.start else "",
            "people": len(pictures.names),
            "num_images": len(pictures.prompts),
            "fingerprint": fingerprint,
            "version": __version__,
            "report": run.report(),
        }
        enhancer = PretrainedEnhancer.of(trainer.model, backbone, **output.base(), training=record)
        output.write(enhancer, "the ID-Enhancer")
    return enhancer


def _validation_pictures(dataset: PeopleDataset) -> PeoplePictures | None:
    """The images of the validation split; None if there are none."""
    try:
        return dataset.pictures("val")
    except TrainingError as error:
        logger.warning("ID-EA: there are no people to validate with. %s", error)
        return None


def validate(
    dataset: PeopleDataset,
    pictures: PeoplePictures,
    backbone: Backbone,
    engine: FaceEngine,
    model: EnhancerModel,
    max_people: int | None = None,
) -> Iterator[dict[str, str | float]]:
    """For each person: mean similarity of images drawn from the face alone, and of the base model's own by name.

    Figures are mean similarities to the reference images: the person's images that the model was not given. An image
    without exactly one face counts as 0.

    Args:
        pictures: the validation split of `dataset`.
        max_people: the first ones; None: all.
    """
    prompts, sampler = dataset.config.prompts, ImageSampler(backbone, dataset.config)
    captions = tokenize_captions(backbone, [prompts[index % len(prompts)] for index in range(VAL_IMAGES)])
    for number, name in list(enumerate(pictures.names))[:max_people]:
        faces = pictures.faces[pictures.people == number]
        inputs, references = faces[::2], faces[1::2]
        face = normalize(inputs.mean(0), dim=0).expand(VAL_IMAGES, -1).to(backbone.device)
        images = sampler.draw_faces(model, captions, face, range(VAL_IMAGES))
        drawn = embed_images(engine, list(to_pixels(images)), only)
        yield {
            "name": name,
            "mean_similarity": float(similarities(drawn, references).mean()),
            "by_name": float(similarities(inputs, references).mean()),
            "detected": float((drawn.norm(dim=1) > 0).float().mean()),
        }
