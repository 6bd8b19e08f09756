"""What one family of base models is: plain data, which every room reads and none repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .ldm_names import KV_LAYER


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
class KVRule:
    """Layers of a transformer whose output holds queries, keys and values of text tokens, side by side.

    Attributes:
        layer: pattern of their names in the network.
        keys, values: their names in files, filled with the pattern's groups. ComfyUI's LoRA loader reads these names.
        text_only: whether the layers see text alone; otherwise the text comes before the image.
    """

    layer: str
    keys: str
    values: str
    text_only: bool


@dataclass(frozen=True)
class WeightRule:
    """Layers of a transformer whose whole output is keys, or values.

    Attributes:
        layer: pattern of their names in the network.
        name: in files, filled with the pattern's groups.
        text_only: whether the layers see text alone; otherwise the image comes before the text.
    """

    layer: str
    name: str
    text_only: bool


@dataclass(frozen=True)
class LanguagePipeline:
    """How diffusers runs a transformer that reads the hidden states of a language model.

    Attributes:
        layers: hidden states that stand side by side in the text condition; 0 are the token embeddings.
        separate, fused: where text becomes keys and values.
        thinking: an option of the chat template.
        padded: whether prompts are padded to the context length.
        shift: of the noise levels in training (arXiv 2403.03206, section 5.3.2); None: the pipeline's scheduler has it.
        unguided: the pipeline's guidance scale that turns guidance off.
    """

    layers: tuple[int, ...]
    separate: tuple[WeightRule, ...]
    fused: tuple[KVRule, ...] = ()
    thinking: bool = False
    padded: bool = False
    shift: float | None = None
    unguided: float = 1.0


@dataclass(frozen=True)
class Transformer:
    """How a family is run whose network is a flow-matching transformer (arXiv 2403.03206) over text and image.

    Attributes:
        configs: ComfyUI's names of the family's model configurations; none: it does not run there.
        blocks: classes of blocks that are computed again in the backward pass, of the network and of text encoders.
        kv: where text becomes keys and values.
        stand_ins: text encoder → texts that its tokenizer always reads as one token; one for each person in a prompt.
        ragged: whether prompts of different lengths cannot be in one batch.
        causal: whether a row of the text condition depends on the tokens before it alone.
        guidance: guidance scale that distilled models take as an input, in training; None: they take none.
        guided: whether images need classifier-free guidance.
        headless: how diffusers runs it; None: ID-EA does not run it there.
        kv_lr_scale: share of the setting `kv_lr`, which is given for cross attention, that is learned with.
    """

    configs: tuple[str, ...]
    blocks: tuple[str, ...]
    kv: tuple[KVRule, ...]
    stand_ins: Mapping[str, tuple[str, ...]]
    ragged: bool = False
    causal: bool = True
    guidance: float | None = None
    guided: bool = True
    headless: LanguagePipeline | None = None
    kv_lr_scale: float = 0.1  # searched: docs/transformers.md


@dataclass(frozen=True)
class BaseModel:
    """A family of base models that share text encoders, text condition and latents.

    Attributes:
        encoders: text encoder that reads pseudo-tokens → width of its token embeddings. The keys are those of identity
            files and of ComfyUI's CLIP. Stable Diffusion's hidden states stand side by side in the text condition, in
            this order. Elsewhere the text condition's rows are the tokens of the first.
        plain_encoders: the same of text encoders that read prompts without the person.
        adapter_width: width at which ID-Enhancer and ID-Adapter work, between two projections; None: `width`.
        kv_layer: pattern of K/V layers' names in files.
        transformer: how the network is run; None: a UNet with cross attention.
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
    vae: str = "AutoencoderKL"  # diffusers' class
    checkpoint: Checkpoint | None = None  # None: none in one file
    plain_encoders: Mapping[str, int] = field(default_factory=dict)
    adapter_width: int | None = None
    kv_layer: str = KV_LAYER
    transformer: Transformer | None = None

    @property
    def crosses(self) -> bool:
        """Whether text encoders read their own output again, as CLIP does: language models give rows of other sizes."""
        return self.transformer is None

    @property
    def prompt_length(self) -> int:
        """Tokens of a prompt without start and end."""
        return self.context_length - 2 if self.transformer is None else self.context_length

    def module_width(self, adapter_width: int | None = None) -> int:
        """Width at which ID-Enhancer and ID-Adapter work; None is the family's own."""
        return adapter_width or self.adapter_width or self.width

    def text_layer(self, clip_layer: int | None) -> int:
        """The text encoder layer that `clip_layer` acts as, counted from the end; None is the family's own."""
        return self.clip_layer if clip_layer is None else clip_layer

    def resolution_for(self, prediction: str) -> int:
        """Side in pixels of the images that a model of this prediction, "eps" or "v", was trained on."""
        return self.velocity_resolution or self.resolution if prediction == "v" else self.resolution
