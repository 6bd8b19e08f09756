"""What one family of base models is: plain data, which every room reads and none repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ClipWeights:
    """A CLIP text model among the weights of a checkpoint in one file."""

    prefix: str  # of its keys
    layers: int
    heads: int
    open_clip: bool = False  # keys, activation and padding are OpenCLIP's; otherwise OpenAI's
    projection: int | None = None  # width of the pooled output that the UNet takes from it; None: it takes none


@dataclass(frozen=True)
class Checkpoint:
    """How a family's checkpoints in one file are laid out (LDM's keys, arXiv 2112.10752), which ComfyUI reads too."""

    text_encoders: tuple[ClipWeights, ...]  # in the base model's order
    latent_scale: float  # factor from the VAE's latents to the UNet's
    velocity_mark: tuple[str, float] | None = None  # a bias, and the spread above which it tells a velocity model


@dataclass(frozen=True)
class BaseModel:
    """A family of base models that share text encoders, text condition and latents.

    Attributes:
        encoders: text encoder that reads pseudo-tokens → width of its token embeddings. The keys are those of identity
            files and of ComfyUI's CLIP, in the order in which hidden states stand side by side in the text condition.
        clip_layer: layer of the text encoders that the network was trained on, counted from the end.
        vector_width: width of the network's other condition, pooled text and image sizes; None: it has none.
        kv_rank: default rank of a person's K/V deltas: lower for more layers, so that a file stays small.
    """

    key: str  # written into identity files
    title: str  # name for people
    encoders: Mapping[str, int]
    width: int  # `d`, of the text condition that the network reads
    clip_layer: int
    context_length: int = 77  # tokens that the text encoders read at once, start and end included
    resolution: int = 512  # side in pixels of the images that it was trained on
    velocity_resolution: int | None = None  # the same of its velocity models, where they differ
    latent_channels: int = 4
    vector_width: int | None = None
    kv_rank: int = 8
    lora_names: Literal["diffusers", "ldm"] = "diffusers"  # of layers in kohya's LoRA files
    pipeline: str = "StableDiffusionPipeline"  # diffusers' class
    checkpoint: Checkpoint | None = None  # None: none in one file, and ComfyUI does not know the family

    def text_layer(self, clip_layer: int | None) -> int:
        """The text encoder layer that `clip_layer` acts as, counted from the end; None is the family's own."""
        return self.clip_layer if clip_layer is None else clip_layer

    def resolution_for(self, prediction: str) -> int:
        """Side in pixels of the images that a model of this prediction, "eps" or "v", was trained on."""
        return self.velocity_resolution or self.resolution if prediction == "v" else self.resolution
