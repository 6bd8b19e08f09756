"""Keys and values of a person act alike in ComfyUI's transformers and diffusers', on one text condition."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from inside import INSIDE, in_comfyui

if INSIDE:
    import comfy.utils
    import folder_paths
    from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2KleinPipeline
    from diffusers import Flux2Transformer2DModel as Klein
    from diffusers import ZImageTransformer2DModel as ZImage
    from diffusers.loaders import single_file_utils as layouts
    from probes import apply, pack
    from probes_transformers import denoised, load_transformer, positive, stranger
    from tiny_transformers import FILES

    from_klein = layouts.convert_flux2_transformer_checkpoint_to_diffusers
    from_zimage = layouts.convert_z_image_transformer_checkpoint_to_diffusers

SMALL_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
}


def klein():
    """diffusers' network of the tiny weights, and what else its part of the pack reads of a pipeline."""
    sizes = {"num_layers": 2, "num_single_layers": 2, "attention_head_dim": 128, "num_attention_heads": 2}
    network = Klein(**sizes, joint_attention_dim=7680, guidance_embeds=False)
    ids = {name: getattr(Flux2KleinPipeline, name) for name in ("_prepare_text_ids", "_prepare_latent_ids")}
    return network, from_klein, {"vae": AutoencoderKLFlux2(**SMALL_VAE), **ids}


def zimage():
    """The same of Z-Image."""
    with torch.device("meta"):
        network = ZImage(n_layers=1, cap_feat_dim=2560)
    vae = AutoencoderKL(**SMALL_VAE, scaling_factor=0.36, shift_factor=0.12)
    return network, from_zimage, {"vae": vae}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["klein4b", "zimage"], indirect=True)
@in_comfyui
def test_a_step_with_a_persons_keys_and_values_is_the_same(family):
    base, name = pack("idea_core").BASE_MODELS[family], FILES[family][0]
    flow = {part: pack(f"idea_core.headless.diffusers.flow.{part}") for part in ("networks", "layers")}
    model, clip, _ = load_transformer(family)
    ann = stranger(family, "ann", 1)
    ann = replace(ann, kv={key: 4 * tensor for key, tensor in ann.kv.items()})
    noisy = torch.randn(1, model.model.latent_format.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        patched, named = apply(family, ann, kv_strength=1.0, on=(model, clip))
        condition = positive(patched, named, "<ann> on a hill")
        theirs = denoised(patched, condition, noisy, 0.7)
        without = denoised(model, condition, noisy, 0.7)
    ((context, entries),) = condition
    (marks,) = entries["idea_people"].places.values()

    network, converted, parts = {"klein4b": klein, "zimage": zimage}[family]()
    state = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("diffusion_models", name))
    network.load_state_dict(converted({key: tensor.float() for key, tensor in state.items()}), assign=True)
    ours = flow["networks"].NETWORKS[base.pipeline](SimpleNamespace(transformer=network.eval(), **parts))
    layers = flow["layers"].KVLayers(network, base)
    where = flow["layers"].Where([marks], ours.text_begins(8, 8))
    with torch.inference_mode(), layers.changed([ann.kv]), layers.at(where):
        mine = noisy - 0.7 * ours.predict(noisy, torch.tensor([0.7]), context.float())
    assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    assert (mine - without).abs().max() >= 1e-2 * theirs.abs().max()  # keys and values act
