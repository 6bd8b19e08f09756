"""What tests in ComfyUI's process use: the pack as ComfyUI loaded it, models, identities, sampling, progress."""

from __future__ import annotations

import hashlib
import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import comfy.model_management
import comfy.sample
import comfy.utils
import torch

import nodes

NAMES = ["brad pitt", "emma stone", "tom hanks"]


def pack(name: str):
    """A module of the pack, as ComfyUI loaded it."""
    suffix = ".nodes.extension"
    root = next(key for key in sys.modules if key.endswith(suffix)).removesuffix(suffix)
    return importlib.import_module(f"{root}.{name}")


@cache
def load(checkpoint: str):
    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(f"{checkpoint}.safetensors")[:3]


def weights_hash(*patchers) -> str:
    """Of base weights: what a patcher has merged in is looked under."""
    digest = hashlib.sha256()
    for patcher in patchers:
        for key, tensor in sorted(patcher.model.state_dict().items()):
            tensor = patcher.backup[key].weight if key in patcher.backup else tensor
            digest.update(key.encode() + tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def make_identity(checkpoint: str, seed: int = 0, name: str = "ann", kv: bool = True, gamma: float = 0.8):
    """An identity of random weights that fits a checkpoint."""
    model, _, _ = load(checkpoint)
    core = pack("idea_core")
    base = pack("nodes.comfy.models").require_pair(*load(checkpoint)[:2])
    encoders, d = core.BASE_MODELS[base].encoders, core.BASE_MODELS[base].width
    generator = torch.Generator().manual_seed(seed)

    def random(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    adapter = {key: random(*t.shape, scale=0.03) for key, t in core.GatedAttention(d).state_dict().items()}
    adapter["gamma"] = torch.tensor([gamma])
    layers = pack("nodes.comfy.models").cross_attention_shapes(model.model) if kv else {}
    kv_state = {}
    for layer, (rows, columns) in layers.items():
        kv_state[f"{layer}.lora_up.weight"] = random(rows, 4, scale=0.1)
        kv_state[f"{layer}.lora_down.weight"] = random(4, columns, scale=0.1)
    identity = core.Identity(
        name=name,
        base_ref=core.BaseModelRef(base, pack("nodes.comfy.models").prediction_of(model), None, heads=8, beta=0.4),
        tokens={encoder: random(2, width, scale=0.05) for encoder, width in encoders.items()},
        anchor=random(2, d),
        grounding=random(2, d),
        adapter=adapter,
        kv=kv_state,
    )
    return identity.to(torch.float16)


def training_job(name: str, config, images=None, enhancer=None, **options):
    """The training node's job for one drawn person; `options` are of `TrainingSettings` or of the job."""
    settings = pack("nodes.settings").TrainingSettings
    own = {key: options.pop(key) for key in list(options) if key in settings.__dataclass_fields__}
    return pack("nodes.training_job").TrainingJob(
        name=name,
        photos=pack("idea_core.training.batches").Photos(photos() if images is None else images),
        embeds=pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1)),
        names=tuple(NAMES),
        settings=settings(config, **own),
        enhancer=enhancer,
        **options,
    )


def apply(checkpoint: str, identity, strength=1.0, kv_strength=0.0, start=0.0, end=1.0, on=None, **options):
    model, clip = on or load(checkpoint)[:2]
    node = pack("nodes.apply").ApplyAdapter
    return node.execute(model, clip, identity, strength, kv_strength, start, end, **options).args


def encode(clip, text: str) -> list:
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def plain(conditioning: list) -> list:
    """The same conditioning as the text encoder gave it, before the adapter changed it."""
    return [
        [entries["idea_people"].plain, {name: value for name, value in entries.items() if name != "idea_people"}]
        for _, entries in conditioning
    ]


def people_in(conditioning: list) -> int:
    """How many people a conditioning says it holds."""
    carried = conditioning[0][1].get("idea_people")
    return 0 if carried is None else len(carried.strengths)


def unmarked(conditioning: list) -> list:
    """A conditioning with its text alone, as nodes that rebuild conditionings leave it."""
    return [
        [text, {name: value for name, value in entries.items() if name != "idea_people"}]
        for text, entries in conditioning
    ]


def sample(
    model,
    positive,
    negative,
    steps: int = 4,
    cfg: float = 4.0,
    sampler: str = "euler",
    scheduler: str = "normal",
    shape: tuple[int, int, int] = (1, 8, 8),
) -> torch.Tensor:
    """Latents (B, 4, h, w) of a `shape` (B, h, w)."""
    batch, height, width = shape
    latent = torch.zeros(batch, 4, height, width)
    noise = comfy.sample.prepare_noise(latent, 1)
    options = {"seed": 1, "disable_pbar": True}
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, **options
    ).clone()


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def photos(size: int = 64) -> torch.Tensor:
    return torch.rand(2, size, size, 3, generator=torch.Generator().manual_seed(0))


def face() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(1)), dim=0)


@contextmanager
def progress_of(total: int, interrupt_at: int | None = None, pictures: bool = False) -> Iterator[list[tuple]]:
    """The steps (value, preview) that a node's bar of this total shows meanwhile.

    Args:
        interrupt_at: value at which somebody cancels.
        pictures: whether steps without a preview are left out.
    """
    hook, seen = comfy.utils.PROGRESS_BAR_HOOK, []

    def on_progress(value, of, preview, **_):
        if of == total and (preview is not None or not pictures):  # else another bar, such as the VAE's
            seen.append((value, preview))
            if value == interrupt_at:
                comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(on_progress)
    try:
        yield seen
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)


def sample_plainly(checkpoint: str) -> str:
    """Hash of what the base model samples."""
    model, clip, _ = load(checkpoint)
    with torch.inference_mode():
        picture = sample(model, encode(clip, "a photo of a dog"), encode(clip, "blurry"), steps=2)
    return hashlib.sha256(picture.numpy().tobytes()).hexdigest()


def notices(call) -> list[str]:
    """What the pack logs meanwhile."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        call()
    finally:
        logging.getLogger().removeHandler(handler)
    return [line for line in said if line.startswith("ID-EA")]
