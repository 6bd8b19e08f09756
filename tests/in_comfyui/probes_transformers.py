"""FLUX and Z-Image in ComfyUI's process: tiny models by the stock loaders' functions, and a sampler's single call."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import comfy.samplers
import comfy.sd
import folder_paths
import torch
from probes import encode, face, pack, photos
from tiny_transformers import FILES, encoders_of

import nodes

PROMPT = "a photo of {}, smiling"
CLIP_TYPES = {"flux1": "FLUX", "klein4b": "FLUX2", "zimage": "LUMINA2", "chroma": "CHROMA"}


@lru_cache(1)  # Z-Image takes 6 GiB
def load_transformer(family: str):
    """MODEL, CLIP and VAE as UNETLoader, CLIPLoader and VAELoader give them, text encoders at little depth."""
    network, encoders, vae = FILES[family]
    with torch.inference_mode():
        (model,) = nodes.UNETLoader().load_unet(network, "default")
        paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in encoders]
        kind = comfy.sd.CLIPType[CLIP_TYPES[family]]
        clip = comfy.sd.load_clip(paths, clip_type=kind, model_options=encoders_of(family))
        return model, clip, nodes.VAELoader().load_vae(vae)[0]


class _Once(comfy.samplers.Sampler):
    """Calls the guider's model once, at one noise level."""

    def __init__(self, noisy: torch.Tensor):
        self.noisy = noisy

    def sample(self, model_wrap, sigmas, extra_args, *_others, **_more):
        self.seen = model_wrap(self.noisy.clone(), sigmas[:1], **extra_args)
        return self.seen


def denoised(model, positive: list, noisy: torch.Tensor, sigma: float) -> torch.Tensor:
    """The image (1, c, h, w) that ComfyUI's sampling sees behind `noisy`, without guidance."""
    guider, once = comfy.samplers.CFGGuider(model), _Once(noisy)
    guider.set_conds(positive, [])
    guider.set_cfg(1.0)
    zeros = torch.zeros_like(noisy)
    guider.sample(zeros, zeros, once, torch.tensor([sigma, 0.0]), disable_pbar=True)
    return once.seen


def trained_transformer(family: str, steps: int, name: str = "ann", loaded: tuple | None = None, **settings):
    """A person after some steps on one batch, in full precision, and the batch's losses before and after each.

    `loaded`: MODEL, CLIP and VAE other than the family's.
    """
    core, losses = pack("idea_core"), []
    config = core.TrainConfig(batch_size=2, kv_lr=0.1, **settings)
    models = loaded or load_transformer(family)
    with torch.inference_mode(), pack("nodes.comfy.backbone").backbone_of(*models) as backbone:
        names = ["brad pitt", "emma stone", "tom hanks"]
        run = core.Trainer.of(backbone, photos(), face(), config, names, [PROMPT])
        batch = run.sampler.draw()
        with run.active():
            if config.space == "input":  # through the text encoder, too
                slopes = pack("idea_core.training.self_check").compare_slopes(run, batch.parts(1)[0])
                assert slopes.settled and abs(slopes.measured[-1] - slopes.gradient) <= 0.2 * abs(slopes.gradient)
            losses += [run.step(batch).item() for _ in range(steps)]
            with torch.no_grad():
                losses.append(run.loss(batch).item())
        person, grounding = run.person, run.person.grounding()
        exact = {
            "tokens": {key: tokens.detach().clone() for key, tokens in person.tokens.items()},
            "rows": None if person.rows is None else person.rows.detach().clone(),
            "grounding": grounding.detach().clone(),
            "adapter": {key: weight.detach().clone() for key, weight in person.adapter.applied_weights().items()},
            "kv": {key: weight.clone() for key, weight in person.kv.state_dict().items()},
        }
        latents = run.dataset.buckets[0].latents.mean[batch.photos]
        noisy = backbone.schedule.add_noise(latents, batch.noise, batch.levels)
        identity = replace(run.identity(name), **exact)
    return identity, losses, (latents.clone(), noisy.clone(), batch.levels)


def positive(model, clip, text: str) -> list:
    """A prompt at the guidance of the training, where a model takes one."""
    base = pack("idea_core").BASE_MODELS[pack("nodes.comfy.models").require_pair(model, clip)]
    own = {} if base.transformer.guidance is None else {"guidance": base.transformer.guidance}
    return [[context, {**entries, **own}] for context, entries in encode(clip, text)]


def on(family: str) -> tuple:
    return load_transformer(family)[:2]


def drawn(model, clip, text: str) -> torch.Tensor:
    channels = model.model.latent_format.latent_channels
    latent = {"samples": torch.zeros(1, channels, 8, 8)}
    wanted, unwanted = positive(model, clip, text), positive(model, clip, "")
    return nodes.KSampler().sample(model, 5, 1, 1.0, "euler", "simple", wanted, unwanted, latent, 1.0)[0]["samples"]


def stranger(family: str, name: str, seed: int, scope: str = "person"):
    """A person of random weights that fits a family."""
    core, models = pack("idea_core"), pack("nodes.comfy.models")
    model, clip, _ = load_transformer(family)
    key = models.require_pair(model, clip)
    base, generator = core.BASE_MODELS[key], torch.Generator().manual_seed(seed)

    def random(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    adapter = core.GatedAttention(base.width, width=base.module_width()).state_dict()
    kv = {}
    for layer, fused in models.fused_layers(model.model.diffusion_model, base).items():
        width = model.model.diffusion_model.get_submodule(layer).in_features
        for part in (fused.keys, fused.values):
            kv[f"{part}.lora_up.weight"] = random(width, 2, scale=0.1)
            kv[f"{part}.lora_down.weight"] = random(2, width, scale=0.1)
    return core.Identity(
        name=name,
        base_ref=core.BaseModelRef(key, "flow", None, heads=8, beta=0.4),
        tokens={encoder: random(2, width, scale=0.05) for encoder, width in base.encoders.items()},
        rows=random(2, base.width),
        grounding=random(2, base.module_width()),
        adapter={part: random(*weight.shape, scale=0.05) for part, weight in adapter.items()},
        kv=kv,
        kv_scope=scope,
    )
