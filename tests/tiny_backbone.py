"""A `Backbone` over diffusers' and transformers' own classes at tiny size, with random weights."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch.nn.utils import parametrize
from transformers import CLIPTextConfig, CLIPTextModel

from idea_core.backbone import TextCondition

WIDTH, WORDS, LENGTH = 768, 512, 32
START, END = WORDS - 2, WORDS - 1
LDM = "diffusion_model."


class _Added(torch.nn.Module):
    def __init__(self, delta, name: str):
        super().__init__()
        self.delta, self.name = delta, name

    def forward(self, weight):
        return weight + self.delta(self.name)


class TinyBackbone:
    """SD 1.x's shapes where the method sees them: text width 768, one encoder, 4 latent channels."""

    base_model, clip_layer, device, num_timesteps = "sd1", None, torch.device("cpu"), 1000

    def __init__(self, prediction: str = "eps", seed: int = 0):
        torch.manual_seed(seed)
        config = CLIPTextConfig(
            vocab_size=WORDS,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            eos_token_id=END,
        )
        self.text = CLIPTextModel(config).eval().requires_grad_(False)
        self.unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
        )
        self.unet.eval().requires_grad_(False)
        self.prediction = prediction
        kind = {"eps": "epsilon", "v": "v_prediction"}[prediction]
        self.scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=kind)
        layers = {n: m for n, m in self.unet.named_modules() if n.endswith(("attn2.to_k", "attn2.to_v"))}
        self._layers = {LDM + name: module for name, module in layers.items()}
        self.kv_shapes = {name: tuple(module.weight.shape) for name, module in self._layers.items()}

    def tokenize(self, text):
        return {"clip_l": [zlib.crc32(word.encode()) % START for word in text.split()]}

    def embed_tokens(self, encoder, ids):
        return self.text.get_input_embeddings()(torch.tensor(ids))

    def encode(self, prompts):
        rows = [self._embed(sequence) for sequence in prompts["clip_l"]]
        table = self.text.get_input_embeddings()
        swap = table.register_forward_hook(lambda *_: torch.stack(rows))
        try:
            ids = torch.full((len(rows), LENGTH), END)
            return TextCondition(self.text(input_ids=ids).last_hidden_state)
        finally:
            swap.remove()

    def _embed(self, sequence):
        entries = [START, *sequence, END]
        entries += [END] * (LENGTH - len(entries))
        return torch.stack([e if torch.is_tensor(e) else self.embed_tokens("clip_l", [e])[0] for e in entries])

    def encode_images(self, images):
        return torch.nn.functional.avg_pool2d(images.movedim(-1, 1), 8)[:, [0, 1, 2, 0]] * 4 - 2

    def add_noise(self, latents, noise, timesteps):
        return self.scheduler.add_noise(latents, noise, timesteps)

    def target(self, latents, noise, timesteps):
        return noise if self.prediction == "eps" else self.scheduler.get_velocity(latents, noise, timesteps)

    def predict(self, noisy, timesteps, condition):
        return self.unet(noisy, timesteps, encoder_hidden_states=condition.context).sample

    @contextmanager
    def kv_deltas(self, delta) -> Iterator[None]:
        for name, layer in self._layers.items():
            parametrize.register_parametrization(layer, "weight", _Added(delta, name))
        try:
            yield
        finally:
            for layer in self._layers.values():
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
