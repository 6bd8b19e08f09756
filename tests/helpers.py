"""What several test files use: a person and a training at tiny size, foreign files, people to learn from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from idea_core import BaseModelRef, GatedAttention, Identity, TrainConfig, Trainer
from idea_core.enhancers.config import EnhancerTrainConfig
from idea_core.enhancers.dataset import PeoplePictures
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.enhancers.trainer import EnhancerTrainer
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.method.anchor import enhancer_anchor
from idea_core.training.state import restore_state, save_state

ROOT = Path(__file__).parent.parent
FAMILIES = ["sd1", "sd2", "sdxl"]
NAMES = ("bp", "es", "c")  # of two, two and one token to a tokenizer of letters
MANY_NAMES = tuple(f"{a}{b}" for a in "abcdef" for b in "ghijklm")
QUICK = TrainConfig(steps=3, batch_size=2)
QUICK_ENHANCER = EnhancerTrainConfig(steps=3, batch_size=2)
K = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
V = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v"


def photos(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 16, 16, 3, generator=torch.Generator().manual_seed(0))


def face() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(1)), dim=0)


def trainer(backbone, config: TrainConfig = QUICK, pictures=None, **options) -> Trainer:
    return Trainer.of(backbone, photos() if pictures is None else pictures, face(), config, NAMES, **options)


def weights_hash(backbone: DiffusersBackbone) -> str:
    digest = hashlib.sha256()
    texts = [part.model for part in backbone._text._parts.values()]
    for module in (*texts, backbone._unet, backbone._vae):
        for tensor in module.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def require_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Tensors of the same names, one at least, equal to the bit."""
    assert one
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def require_same_end(start: Callable[[], Trainer], state: Path) -> None:
    """A training that breaks off after two steps goes on to where a whole one ends."""
    whole, broken, resumed = (start() for _ in range(3))
    whole.run()
    broken.run(lambda step, _: broken.stop() if step == 2 else None)
    save_state(broken, state, "same")
    assert restore_state(resumed, state, "same") == 2
    resumed.run()
    assert resumed.identity("alice").digest() == whole.identity("alice").digest()


def train(pipeline, name: str = "alice", **settings) -> Identity:
    config = TrainConfig(**{"steps": 2, "batch_size": 2, "kv_lr": 0.1, **settings})
    run = Trainer.of(DiffusersBackbone(pipeline), photos(), face(), config, ["ab", "cd"])
    run.run()
    return run.identity(name)


def make_identity(base_model: str = "sd1", **changes) -> Identity:
    widths = {"sd1": {"clip_l": 768}, "sd2": {"clip_h": 1024}, "sdxl": {"clip_l": 768, "clip_g": 1280}}[base_model]
    d, generator = sum(widths.values()), torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    parts = {
        "name": "alice",
        "tokens": {encoder: random(2, width) for encoder, width in widths.items()},
        "anchor": random(2, d),
        "grounding": random(2, d),
        "id_embeds": random(512),
        "adapter": {key: random(*tensor.shape) for key, tensor in GatedAttention(d).state_dict().items()},
        "kv": {
            f"{K}.lora_up.weight": random(320, 8),
            f"{K}.lora_down.weight": random(8, d),
            f"{V}.diff": random(320, d),
        },
        "training": {"steps": 25, "losses": [1.0, 0.5]},
    }
    ref = {"prediction": "eps", "clip_layer": None, "heads": 8, "beta": 0.4}
    ref |= {"base_checkpoint": "base.safetensors", "base_hash": "0" * 64}
    ref |= {key: changes.pop(key) for key in list(changes) if key in ref}
    return Identity(**{**parts, **changes}, base_ref=BaseModelRef(base_model, **ref))


def rewrite(path, change) -> None:
    """Change a file's tensors and metadata in place."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    change(tensors, metadata)
    safetensors.torch.save_file(tensors, path, metadata)


def published(path, name: str = "<00011>", width: int = 1024, count: int = 2) -> dict[str, torch.Tensor]:
    """A file as the published training command writes it: a token a vector, of norm 33."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, width, generator=generator)
    vectors *= 33 / vectors.norm(dim=1, keepdim=True)
    content = {f"{name}_v{number}": vector.clone() for number, vector in enumerate(vectors)}
    torch.save(content, path)
    return content


class RunsCode:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def many_faces(count: int, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 512, generator=generator), dim=1)


def pictures(backbone, people=(0, 0, 1, 1, 1)) -> PeoplePictures:
    images = torch.rand(len(people), 16, 16, 3, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode_images(images).mean
    prompts, names = ["a {}"] * len(people), NAMES[: max(people) + 1]
    return PeoplePictures(latents, many_faces(len(people)), torch.tensor(people), prompts, names)


def across(backbone, config: EnhancerTrainConfig = QUICK_ENHANCER, **options) -> EnhancerTrainer:
    return EnhancerTrainer(backbone, enhancer_anchor(backbone, NAMES, 2), pictures(backbone, **options), config)


def losses_of_one_batch(run: EnhancerTrainer, steps: int = 12) -> tuple[float, float, set[str]]:
    """The loss of one batch before and after steps on it, and the weights that moved."""
    (objective,) = run.objectives
    batch = objective.draw()
    with torch.no_grad():
        first = objective.loss(batch).item()
    start = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
    objective.draw = lambda: batch
    for _ in range(steps):
        run.run_step()
    with torch.no_grad():
        last = objective.loss(batch).item()
    return first, last, {key for key, tensor in run.model.state_dict().items() if not torch.equal(tensor, start[key])}


def trained(backbone) -> PretrainedEnhancer:
    run = across(backbone)
    run.run()
    return PretrainedEnhancer.of(run.model, backbone, base_checkpoint="tiny")
