"""ComfyUI and diffusers read the same prompts, with people in them, by the same language model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from chat_template import TEMPLATE
from inside import INSIDE, in_comfyui

if INSIDE:
    import comfy.sd
    import comfy.text_encoders.z_image
    import folder_paths
    from probes import pack
    from probes_transformers import CLIP_TYPES
    from tiny_transformers import FILES, encoders_of
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

PROMPTS = ["a photo of {}, smiling", "{} (by the sea:1.2)", "a dog on a hill"]


def language_model(family: str):
    """The tiny language model of a family in transformers' class, behind diffusers' part of the pack."""
    sizes, (name,) = encoders_of(family)["qwen3_4b_model_config"], FILES[family][1]
    state = torch.load(folder_paths.get_full_path_or_raise("text_encoders", name))
    state = {key.removeprefix("model."): tensor.float() for key, tensor in state.items()}
    vocabulary, width = state["embed_tokens.weight"].shape
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=width, head_dim=128, rms_norm_eps=1e-6, rope_theta=1e6, **sizes
    )
    model = Qwen3Model(config).eval()
    model.load_state_dict(state)
    tokenizer = Qwen2Tokenizer.from_pretrained(Path(comfy.text_encoders.z_image.__file__).parent / "qwen25_tokenizer")
    tokenizer.chat_template = TEMPLATE
    parts = SimpleNamespace(tokenizer=tokenizer, text_encoder=model)
    return pack("idea_core.headless.diffusers.flow.language").LanguageModel(
        parts, pack("idea_core").BASE_MODELS[family]
    )


@pytest.mark.slow  # a table of 151,936 tokens, twice
@pytest.mark.parametrize("family", ["zimage", "klein4b"], indirect=True)
@in_comfyui
def test_a_prompt_is_the_same_text_condition(family):
    prompts, ours = pack("idea_core.text.prompts"), language_model(family)
    paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in FILES[family][1]]
    kind = comfy.sd.CLIPType[CLIP_TYPES[family]]
    clip = comfy.sd.load_clip(paths, clip_type=kind, model_options=encoders_of(family))
    clip.load_model()
    vectors = 0.03 * torch.randn(2, 2560, generator=torch.Generator().manual_seed(0))
    read, places = pack("nodes.comfy.transformer").ReadPrompt, pack("nodes.comfy.stand_ins").places
    for prompt in PROMPTS:
        held = {"qwen3_4b": list(vectors)} if "{}" in prompt else {}
        with torch.inference_mode():
            tokens = read(clip, ours.base, prompt).filled(held)
            theirs = clip.cond_stage_model.encode_token_weights(tokens)[0]
            mine, rows = ours.encode(ours.read(prompts.split_prompt(prompt, ["ann"])), [[vectors]] if held else [])
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()
        if held:
            assert rows == [places(tokens["qwen3_4b"], held["qwen3_4b"], theirs.shape[1])] and len(rows[0]) == 2
