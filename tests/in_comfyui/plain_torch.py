"""A checkpoint in LDM format on transformers' text encoder and diffusers' UNet, without ComfyUI."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from idea_core import Identity

TEXT = {
    "sd1": CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu"
    ),
    "sd2": CLIPTextConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, hidden_act="gelu"
    ),
}


@torch.no_grad()
def encode(state: dict[str, Tensor], identity: Identity, ids: list[int]) -> Tensor:
    """Text condition (1, 77, d) of a prompt whose ids hold a pair of equal ids for the person's two tokens."""
    config = TEXT[identity.base_model]
    model = CLIPTextModel(config).eval()
    weights = _text_weights(state, identity.base_model)
    if not any(key.startswith("text_model.") for key in model.state_dict()):
        weights = {key.removeprefix("text_model."): tensor for key, tensor in weights.items()}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert not [key for key in missing if "position_ids" not in key]
    ids = torch.tensor([ids])
    first = int((ids[0, 1:] == ids[0, :-1]).nonzero()[0])
    (tokens,) = identity.tokens.values()

    def put_person_in(_module, _inputs, embeddings):
        embeddings = embeddings.clone()
        embeddings[0, first : first + 2] = tokens.float()
        return embeddings

    hook = model.get_input_embeddings().register_forward_hook(put_person_in)
    output = model(input_ids=ids, output_hidden_states=True)
    hook.remove()
    if identity.base_model == "sd1":
        return output.last_hidden_state
    norm = model.text_model.final_layer_norm if hasattr(model, "text_model") else model.final_layer_norm
    return norm(output.hidden_states[-2])


def unet(state: dict[str, Tensor], config: dict) -> UNet2DConditionModel:
    """diffusers' UNet with a tiny checkpoint's weights, in single precision."""
    width, linear = config["context_dim"], config["use_linear_in_transformer"]
    model = UNet2DConditionModel(
        block_out_channels=(320,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=width,
        attention_head_dim=5 if linear else 8,
        use_linear_projection=linear,
    )
    converted = convert_ldm_unet_checkpoint(dict(state), dict(model.config))
    model.load_state_dict({key: tensor.float() for key, tensor in converted.items()}, strict=True)
    return model.eval().requires_grad_(False)


def _text_weights(state: dict[str, Tensor], base_model: str) -> dict[str, Tensor]:
    if base_model == "sd1":
        prefix = "cond_stage_model.transformer."
        return {k.removeprefix(prefix): t.float() for k, t in state.items() if k.startswith(prefix)}
    return _from_open_clip({k: t.float() for k, t in state.items() if k.startswith("cond_stage_model.model.")})


def _from_open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's names → transformers'."""
    names = {
        "cond_stage_model.model.transformer.resblocks.": "text_model.encoder.layers.",
        "cond_stage_model.model.token_embedding.": "text_model.embeddings.token_embedding.",
        "cond_stage_model.model.positional_embedding": "text_model.embeddings.position_embedding.weight",
        "cond_stage_model.model.ln_final.": "text_model.final_layer_norm.",
        ".attn.out_proj.": ".self_attn.out_proj.",
        ".ln_1.": ".layer_norm1.",
        ".ln_2.": ".layer_norm2.",
        ".mlp.c_fc.": ".mlp.fc1.",
        ".mlp.c_proj.": ".mlp.fc2.",
    }
    converted = {}
    for key, tensor in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        if ".attn.in_proj_" in key:
            start, kind = key.split(".attn.in_proj_")
            for projection, part in zip("qkv", tensor.chunk(3)):
                converted[f"{start}.self_attn.{projection}_proj.{kind}"] = part
        else:
            converted[key] = tensor
    return {key: tensor for key, tensor in converted.items() if key.startswith("text_model.")}
