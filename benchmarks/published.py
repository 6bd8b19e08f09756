"""The published training loop, restated plainly: what `benchmarks/train.py` is measured against.

From the paper (arXiv 2507.11990) and the description of its code: the pseudo-tokens are rows of the whole vocabulary,
which is optimised and put back after each step; photos are encoded at each step; Σ is inverted at each step; each
prompt of a batch is encoded; keys and values get gradients that no optimiser takes. It shares nothing with the package
but the names of the weights that it starts from, and the draws that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from idea_core.training.batches import Batch
from idea_core.training.config import TrainConfig

HEADS, BETA, ZETA = 8, 0.4, 2e-5


class PublishedLoop:
    """The loop on a diffusers Stable Diffusion pipeline, which it changes.

    Args:
        images: (P, H, W, 3) in 0…1.
        captions: with `{}` for the person.
        start: `Trainer.weights()`, before the first step, of a training with the published settings.
    """

    def __init__(
        self, pipeline, images: Tensor, captions: Sequence[str], config: TrainConfig, start: Mapping[str, Tensor]
    ):
        self.pipe, self.config = pipeline, config
        self.device, self.dtype = pipeline.unet.device, pipeline.unet.dtype
        self.pixels = (torch.cat([images, images.flip(2)]).movedim(-1, 1) * 2 - 1).to(self.device, self.dtype)
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False)
        for name, parameter in pipeline.unet.named_parameters():
            parameter.requires_grad_("attn2.to_k" in name or "attn2.to_v" in name)
        words = [f"<v{number}>" for number in range(config.num_tokens)]
        self.pipe.tokenizer.add_tokens(words)
        self.rows = self.pipe.tokenizer.convert_tokens_to_ids(words)
        self.captions = [caption.format(" ".join(words)) for caption in captions]
        self.vocabulary = self._vocabulary(start)
        self.others = torch.ones(len(self.vocabulary), dtype=torch.bool, device=self.device)
        self.others[self.rows] = False
        self.before = self.vocabulary.detach().clone()
        self.anchor = start["anchor"].to(self.device, self.dtype)
        self.fused = self._enhanced({key: tensor.to(self.device, self.dtype) for key, tensor in start.items()})
        own = ("adapter.",)
        self.adapter = {
            key.removeprefix("adapter."): nn.Parameter(tensor.detach().to(self.device, self.dtype).clone())
            for key, tensor in start.items()
            if key.startswith(own)
        }
        self.optimizer = torch.optim.AdamW(
            [self.vocabulary, *self.adapter.values()],
            lr=config.token_lr,
            weight_decay=config.weight_decay,
            eps=config.adam_epsilon,
        )

    def step(self, batch: Batch) -> float:
        """One step; its denoising loss."""
        pipe, scheduler = self.pipe, self.pipe.scheduler
        posterior = pipe.vae.encode(self.pixels[batch.photos.to(self.device)]).latent_dist
        drawn = posterior.mean + posterior.std * batch.posterior_noise.to(posterior.mean)
        latents = drawn * pipe.vae.config.scaling_factor
        noise, timesteps = batch.noise.to(latents), batch.levels.to(self.device)
        signal = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        ids = pipe.tokenizer(
            [self.captions[index % len(self.captions)] for index in batch.captions.tolist()],
            padding="max_length",
            max_length=pipe.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids.to(self.device)
        context = self._adapted(pipe.text_encoder(ids)[0])
        prediction = pipe.unet(noisy, timesteps, encoder_hidden_states=context).sample
        loss = (prediction - noise).square().mean()
        (loss + self.config.regularizer_weight * self._distance()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        pipe.unet.zero_grad()
        with torch.no_grad():
            self.vocabulary[self.others] = self.before[self.others]
        return loss.item()

    def weights(self) -> dict[str, Tensor]:
        """What was trained, named as in `Trainer.weights()`."""
        adapter = {f"adapter.{key}": tensor.detach() for key, tensor in self.adapter.items()}
        return {"pseudo_tokens.vectors.clip_h": self.vocabulary.detach()[self.rows], **adapter}

    def _vocabulary(self, start: Mapping[str, Tensor]) -> nn.Parameter:
        encoder = self.pipe.text_encoder
        old = encoder.get_input_embeddings().weight
        table = nn.Embedding(max(len(self.pipe.tokenizer), len(old)), old.shape[1], device=old.device, dtype=old.dtype)
        with torch.no_grad():
            table.weight[: len(old)] = old
            table.weight[self.rows] = start["pseudo_tokens.vectors.clip_h"].to(old)
        encoder.set_input_embeddings(table)
        return table.weight

    def _enhanced(self, w: Mapping[str, Tensor]) -> Tensor:
        """`F` (n, 2d) of the Enhancer as it was initialised, which is never trained."""
        face = linear(w["id_embeds"], w["enhancer.expand.weight"], w["enhancer.expand.bias"]).expand(
            self.config.num_tokens, -1
        )
        query = linear(face, w["enhancer.query.weight"], w["enhancer.query.bias"])
        pairs = linear(self.anchor, w["enhancer.key_value.weight"], w["enhancer.key_value.bias"])
        attention = {key.removeprefix("enhancer."): tensor for key, tensor in w.items() if "enhancer.att" in key}
        attended = _attention(query[None], pairs[None], attention)[0]
        return linear(attended, w["enhancer.out.weight"], w["enhancer.out.bias"])

    def _adapted(self, context: Tensor) -> Tensor:
        w = self.adapter
        person = linear(self.fused, w["fuse.weight"], w["fuse.bias"]).expand(len(context), -1, -1)
        joint = torch.cat([context, person], dim=1)
        attended = _attention(joint, joint, w)[:, : context.shape[1]]
        return context + BETA * torch.tanh(w["gamma"]) * attended

    def _distance(self) -> Tensor:
        covariance = torch.cov(self.anchor.T) + ZETA * torch.eye(self.anchor.shape[1]).to(self.anchor)
        inverse = torch.linalg.pinv(covariance)
        offset = self.vocabulary[self.rows] - self.anchor
        return ((offset @ inverse) * offset).sum(1).clamp(min=1e-8).sqrt().mean()


def _attention(query: Tensor, pairs: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """Multi-head attention (B, Q, d) over (B, K, d), as equations of its weights."""
    weights, biases = w["attention.in_proj_weight"].chunk(3), w["attention.in_proj_bias"].chunk(3)
    q, k, v = (
        linear(x, weight, bias).unflatten(-1, (HEADS, -1))
        for x, weight, bias in zip((query, pairs, pairs), weights, biases)
    )
    scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
    mixed = torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v).flatten(-2)
    return linear(mixed, w["attention.out_proj.weight"], w["attention.out_proj.bias"])
