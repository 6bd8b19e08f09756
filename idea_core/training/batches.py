"""What the steps of a training see: photos, mirror images, captions, noise levels, noise, all drawn from one seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..diffusion.backbone import Backbone, Latents, Prompt
from ..diffusion.schedule import Schedule
from ..errors import ShapeError, TrainingError, require_shape
from ..text.captions import with_note
from ..text.tokenized import tokenize_captions
from .config import TrainConfig


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos of one size to train on.

    Attributes:
        images: (P, H, W, 3) in 0…1.
        notes: description of what else each photo shows (`with_note`); empty: no notes.
        masks: (P, H, W) in 0…1, weight of each part of a photo, 1 for the face; None: all parts weigh the same.
        names: what errors call each photo, such as its file's name; empty: its number.

    Raises:
        ShapeError: parts that do not fit each other.
    """

    images: Tensor
    notes: Sequence[str] = ()
    masks: Tensor | None = None
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_shape("images", self.images, "P", "H", "W", 3)
        if self.masks is not None:
            require_shape("masks", self.masks, *self.images.shape[:3])
        for kind, texts in (("notes", self.notes), ("names", self.names)):
            if len(texts) not in (0, len(self.images)):
                raise ShapeError(f"{len(self.images)} {kind}, one for each photo", str(len(texts)), f"Change {kind}.")


def count_photos(photos: Sequence[Photos]) -> int:
    return sum(len(part.images) for part in photos)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Photos of one size in the VAE's terms: the photos, then their mirror images.

    Attributes:
        latents: of 2P photos.
        loss_weight: (2P, 1, h, w), weight of each cell, of mean 1 in each photo; None: all cells weigh the same.
        captions: number of captions of each photo, (P,).
        first: index of each photo's first caption, (P,).
    """

    latents: Latents
    loss_weight: Tensor | None
    captions: Tensor
    first: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: Backbone, photos: Photos, captions: Sequence[int], first: int) -> Bucket:
        """Encode photos; `captions` is the number of captions of each, `first` the index of the very first one."""
        latents = backbone.encode_images(torch.cat([photos.images, photos.images.flip(2)]))
        counts = torch.tensor(captions)
        loss_weight = None if photos.masks is None else _loss_weights(photos.masks, latents.mean)
        return cls(latents, loss_weight, counts, first + counts.cumsum(0) - counts)

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True, eq=False)
class PhotoDataset:
    """A person's photos as the base model has them: a bucket for each size, and the captions photo by photo."""

    buckets: Sequence[Bucket]
    captions: Sequence[Prompt]

    @classmethod
    def encode(
        cls, backbone: Backbone, photos: Sequence[Photos], captions: Sequence[str], num_tokens: int
    ) -> PhotoDataset:
        """Encode photos, after all captions have been checked.

        Args:
            captions: with `{}` where the person stands; each photo gets them all, with its note.
            num_tokens: pseudo-tokens of the person.

        Raises:
            TrainingError: a caption without a place for the person, or with several; an empty mask.
            ConfigError: a caption that is too long for the text encoder; it names its photo.
        """
        texts: list[str] = []
        places: list[str] = []  # of the texts, for errors
        counts: list[list[int]] = []
        for part in photos:
            before = sum(map(len, counts))
            counts.append([])
            for index in range(len(part.images)):
                note = part.notes[index] if part.notes else ""
                name = part.names[index] if part.names else str(before + index)
                noted = with_note(captions, note)
                texts += noted
                places += [f"for photo {name}" + (", its note included" if note else "")] * len(noted)
                counts[-1].append(len(noted))
        tokenized = tokenize_captions(backbone, texts, num_tokens, places)
        buckets, first = [], 0
        for part, each in zip(photos, counts):
            buckets.append(Bucket.of(backbone, part, each, first))
            first += sum(each)
        return cls(buckets, tokenized)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees; drawn on the CPU."""

    bucket: int  # index of the photos' bucket
    photos: Tensor  # (B,) indices of latents
    captions: Tensor  # (B,) indices of captions
    levels: Tensor  # (B,), noise levels
    noise: Tensor  # (B, c, h, w)
    posterior_noise: Tensor | None = None  # (B, c, h, w), standard normal: places in the VAE's posterior
    drawn: Tensor | None = None  # (Q, c, h, w), standard normal: noise of the images that the likeness loss draws
    drawn_captions: Tensor | None = None  # (Q,) indices of captions

    def parts(self, size: int, by_caption: bool = False) -> list[Batch]:
        """The same batch in pieces of at most `size` photos, each of one caption where that is wanted."""
        names = ("photos", "captions", "levels", "noise", "posterior_noise")
        rows = {name: part for name in names if (part := getattr(self, name)) is not None}
        whole = [torch.arange(len(self.photos))]
        groups = [(self.captions == one).nonzero()[:, 0] for one in self.captions.unique()] if by_caption else whole
        return [
            replace(self, **{name: part[index] for name, part in rows.items()})
            for group in groups
            for index in group.split(size)
        ]


class BatchSampler:
    """Draws batches from one seed. All photos of a batch are of one size; each photo is drawn as often as any other."""

    def __init__(self, buckets: Sequence[Bucket], schedule: Schedule, config: TrainConfig):
        self.buckets, self.schedule, self.config = buckets, schedule, config
        self.generator = torch.Generator().manual_seed(config.seed)

    def draw(self) -> Batch:
        size, generator = self.config.batch_size, self.generator
        number = 0
        if len(self.buckets) > 1:
            sizes = torch.tensor([float(len(bucket)) for bucket in self.buckets])
            number = int(torch.multinomial(sizes, 1, generator=generator))
        bucket = self.buckets[number]
        photos = torch.randint(len(bucket), (size,), generator=generator)
        mirrored = torch.rand(size, generator=generator) < self.config.flip_p
        caption = (torch.rand(size, generator=generator) * bucket.captions[photos]).long()
        latent = bucket.latents.mean.shape[1:]
        shape = (size, *latent)
        batch = Batch(
            bucket=number,
            photos=photos + mirrored * len(bucket),
            captions=bucket.first[photos] + caption,
            levels=self.schedule.draw(size, generator),
            noise=torch.randn(shape, generator=generator),
            posterior_noise=torch.randn(shape, generator=generator) if self.config.sample_latents else None,
        )
        if not self.config.likeness_weight:
            return batch
        count, captions = self.config.likeness_images, sum(int(part.captions.sum()) for part in self.buckets)
        return replace(
            batch,
            drawn=torch.randn(count, *latent, generator=generator),
            drawn_captions=torch.randint(captions, (count,), generator=generator),
        )


def _loss_weights(masks: Tensor, latents: Tensor) -> Tensor:
    """Weights (2P, 1, h, w) of the latents' cells, of mean 1 in each photo, the second half mirrored."""
    both = torch.cat([masks, masks.flip(2)]).unsqueeze(1).to(latents)
    height, width = latents.shape[-2:]
    pooled = nn.functional.adaptive_avg_pool2d(both, (height, width))
    mean = pooled.mean((1, 2, 3), keepdim=True)
    if not (mean > 0).all():
        raise TrainingError("masks with something in them", "an empty one", "Remove it, or mark the face.")
    return pooled / mean
