"""What one family of base models is: plain data, which every room reads and none repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class ClipWeights:
    """A CLIP text model among the weights of a checkpoint in one file.

    Attributes:
        prefix: of its keys.
        layers, heads: of its transformer.
        open_clip: keys, activation and padding are OpenCLIP's; otherwise OpenAI's.
        projection: width of the pooled output that the UNet takes from it; None: it takes none.
    """

    prefix: str
    layers: int
    heads: int
    open_clip: bool = False
    projection: int | None = None


class VelocityMark(NamedTuple):
    """A bias by which velocity models are told from noise models, where a checkpoint says nothing (ComfyUI)."""

    key: str
    spread: float  # standard deviation, above it for velocity


@dataclass(frozen=True)
class Checkpoint:
    """How a family's checkpoints in one file are laid out (LDM's keys, arXiv 2112.10752), which ComfyUI reads too.

    Attributes:
        text_encoders: those of the base model, in their order.
        latent_scale: factor from the VAE's latents to the UNet's.
        velocity_mark: None: only a key `v_pred` tells a velocity model.
    """

    text_encoders: tuple[ClipWeights, ...]
    latent_scale: float
    velocity_mark: VelocityMark | None = None


@dataclass(frozen=True)
class BaseModel:
    """A family of base models that share text encoders, text condition and latents.

    Attributes:
        key: short name, written into identity files.
        title: name for people.
        encoders: text encoder that reads pseudo-tokens → width of its token embeddings. The keys are those of identity
            files and of ComfyUI's CLIP, in the order in which hidden states stand side by side in the text condition.
        width: `d`, of the text condition that the network reads.
        clip_layer: layer of the text encoders that the network was trained on, counted from the end.
        context_length: tokens that the text encoders read at once, start and end included.
        resolution: side in pixels of the images that it was trained on.
        velocity_resolution: the same of the family's velocity models, where they differ.
        latent_channels: `c`, of the VAE's latents.
        vector_width: of what the network reads besides the text: pooled text and image sizes; None: nothing.
        kv_rank: rank of a person's change to keys and values, unless another is asked for: lower for more layers, so
            that a file stays small.
        lora_names: whose names of layers kohya's LoRA files have.
        pipeline: diffusers' class.
        checkpoint: layout of checkpoints in one file; None: there are none, and ComfyUI does not know the family.
    """

    key: str
    title: str
    encoders: Mapping[str, int]
    width: int
    clip_layer: int
    context_length: int = 77
    resolution: int = 512
    velocity_resolution: int | None = None
    latent_channels: int = 4
    vector_width: int | None = None
    kv_rank: int = 8
    lora_names: Literal["diffusers", "ldm"] = "diffusers"
    pipeline: str = "StableDiffusionPipeline"
    checkpoint: Checkpoint | None = None

    def text_layer(self, clip_layer: int | None) -> int:
        """The text encoder layer that `clip_layer` acts as, counted from the end; None is the family's own."""
        return self.clip_layer if clip_layer is None else clip_layer

    def resolution_for(self, prediction: str) -> int:
        """Side in pixels of the images that a model of this prediction, "eps" or "v", was trained on."""
        return self.velocity_resolution or self.resolution if prediction == "v" else self.resolution
