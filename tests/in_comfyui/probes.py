"""What the tests look at inside real ComfyUI. Each function returns plain JSON values."""

from __future__ import annotations

import hashlib
import importlib
import sys
from functools import cache

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.utils
import comfy_extras.nodes_cond  # noqa: F401 - part of the stock nodes
import torch
from comfy.patcher_extension import WrappersMP
from safetensors.torch import save_file

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
    base = pack("nodes.comfy_models").require_pair(*load(checkpoint)[:2])
    encoders, d = core.BASE_MODELS[base].encoders, core.BASE_MODELS[base].width
    generator = torch.Generator().manual_seed(seed)

    def random(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    adapter = {key: random(*t.shape, scale=0.03) for key, t in core.Adapter(d).state_dict().items()}
    adapter["gamma"] = torch.tensor([gamma])
    layers = pack("nodes.comfy_backbone")._cross_attention_shapes(model.model) if kv else {}
    kv_state = {}
    for layer, (rows, columns) in layers.items():
        kv_state[f"{layer}.lora_up.weight"] = random(rows, 4, scale=0.1)
        kv_state[f"{layer}.lora_down.weight"] = random(4, columns, scale=0.1)
    identity = core.Identity(
        name=name,
        base_model=base,
        prediction=pack("nodes.comfy_models").prediction_of(model),
        clip_layer=None,
        heads=8,
        beta=0.4,
        tokens={encoder: random(2, width, scale=0.05) for encoder, width in encoders.items()},
        anchor=random(2, d),
        fused=random(2, 2 * d),
        adapter=adapter,
        kv=kv_state,
    )
    return identity.to(torch.float16)


def apply(checkpoint: str, identity, strength=1.0, kv_strength=0.0, start=0.0, end=1.0, on=None):
    model, clip = on or load(checkpoint)[:2]
    node = pack("nodes.apply").ApplyAdapter
    return node.execute(model, clip, identity, strength, kv_strength, start, end).args


def encode(clip, text: str) -> list:
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def sample(model, positive, negative, steps: int = 4, cfg: float = 4.0, sampler: str = "euler") -> torch.Tensor:
    latent = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 1)
    options = {"seed": 1, "disable_pbar": True}
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", positive, negative, latent, **options
    ).clone()


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def photos(size: int = 64) -> torch.Tensor:
    return torch.rand(2, size, size, 3, generator=torch.Generator().manual_seed(0))


def face() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(1)), dim=0)


# --- training -------------------------------------------------------------------------------------


def fixed_batch(checkpoint: str, steps: int) -> dict:
    """Losses of one batch, seen again and again with the default rates, until they fell by a fifth."""
    trainer_module, config = pack("idea_core.trainer"), pack("idea_core.config").TrainConfig(batch_size=2)
    losses = []
    with torch.inference_mode(), pack("nodes.comfy_backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        trainer = trainer_module.Trainer(backbone, photos(), face(), config, NAMES, ["a photo of {}"])
        batch = trainer._sampler.draw()
        with trainer.kv_deltas():
            while len(losses) < steps and not (losses and losses[-1] <= 0.8 * losses[0]):
                losses.append(trainer.step(batch).item())
    return {"losses": losses}


def train(checkpoint: str, name: str, steps: int = 2, interrupt_at: int | None = None, settings: dict = {}) -> dict:
    """One run of the training node's job; hashes of MODEL and CLIP before and after."""
    model, clip, vae = load(checkpoint)
    before = weights_hash(model, clip.patcher)
    config = pack("idea_core.config").TrainConfig(**{"steps": steps, "batch_size": 1, **settings})
    job = pack("nodes.train").TrainingJob(name, photos(), face(), tuple(NAMES), config)
    hook, stop = comfy.utils.PROGRESS_BAR_HOOK, comfy.model_management.interrupt_current_processing
    seen, outcome = [], "trained"

    def on_progress(value, total, preview, **_):
        seen.append(value)
        if value == interrupt_at:
            stop()

    comfy.utils.set_progress_bar_global_hook(on_progress)
    try:
        with torch.inference_mode():
            identity = job.run(model, clip, vae, None, None)
        outcome = identity.digest()
    except comfy.model_management.InterruptProcessingException:
        outcome = "interrupted"
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
    after = weights_hash(model, clip.patcher)
    sampled = sample_plainly(checkpoint)
    return {"before": before, "after": after, "seen": seen, "outcome": outcome, "sample": sampled}


def sample_plainly(checkpoint: str) -> str:
    """Hash of what the base model samples."""
    model, clip, _ = load(checkpoint)
    with torch.inference_mode():
        picture = sample(model, encode(clip, "a photo of a dog"), encode(clip, "blurry"), steps=2)
    return hashlib.sha256(picture.numpy().tobytes()).hexdigest()


def gradients(checkpoint: str) -> dict:
    """The backbone's gradients against torch's own means for in-place forwards, and against a finite difference."""
    with torch.inference_mode(), pack("nodes.comfy_backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        encoder, width = next(iter(pack("idea_core").BASE_MODELS[backbone.base_model].encoders.items()))
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(2, width, generator=generator).requires_grad_()
        weights = torch.randn(1, 77, width, generator=generator)
        prompt = {encoder: [[320, 1125, *vectors, 530]]}
        ours = torch.autograd.grad((backbone.encode(prompt).context * weights).sum(), vectors)[0]
        with torch.no_grad():
            plain = backbone._text.model(
                [[49406, 320, 1125, *vectors, 530, 49407] + [backbone._text.model.special_tokens["pad"]] * 70]
            )[0]
        context = backbone.encode(prompt).context.detach().requires_grad_()
        noisy, timestep = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([500])
        direction = torch.randn(1, 77, width, generator=generator)
        condition = pack("idea_core").TextCondition

        def loss(context):
            return backbone.predict(noisy, timestep, condition(context)).square().sum()

        slope = (torch.autograd.grad(loss(context), context)[0] * direction).sum().item()
        with torch.no_grad():
            step = 1e-2
            finite = ((loss(context + step * direction) - loss(context - step * direction)) / (2 * step)).item()
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            start, pad = backbone._text.model.special_tokens["start"], backbone._text.model.special_tokens["pad"]
            row = [start, 320, 1125, *vectors, 530, 49407] + [pad] * 70
            reference = torch.autograd.grad((backbone._text.model([row])[0] * weights).sum(), vectors)[0]
        return {
            "text": error(ours, reference),
            "size": reference.abs().max().item(),
            "forward": error(plain, backbone.encode(prompt).context.detach()),
            "slope": slope,
            "finite": finite,
        }


def targets(checkpoint: str) -> dict:
    """The backbone's noise and target against the equations of the noise schedule."""
    with torch.inference_mode(), pack("nodes.comfy_backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        generator = torch.Generator().manual_seed(0)
        latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
        timesteps = torch.tensor([0, 400, 999])
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alpha = (1 - betas).cumprod(0)[timesteps].view(3, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        target = noise if backbone.prediction == "eps" else velocity
        return {
            "prediction": backbone.prediction,
            "noisy": error(backbone.add_noise(latents, noise, timesteps), noisy),
            "target": error(backbone.target(latents, noise, timesteps), target),
        }


# --- applying -------------------------------------------------------------------------------------


@torch.inference_mode()
def plain_prompts(checkpoint: str) -> dict:
    """Conditions and predictions of prompts without the name, with and without Apply."""
    model, clip, _ = load(checkpoint)
    patched_model, patched_clip = apply(checkpoint, make_identity(checkpoint))
    positive, negative = encode(clip, "a photo of a (dog:1.2)"), encode(clip, "blurry " * 100)
    patched_positive = encode(patched_clip, "a photo of a (dog:1.2)")
    patched_negative = encode(patched_clip, "blurry " * 100)
    return {
        "positive": torch.equal(positive[0][0], patched_positive[0][0]),
        "negative": torch.equal(negative[0][0], patched_negative[0][0]),
        "entries": sorted(set(patched_positive[0][1]) - set(positive[0][1])),
        "picture": torch.equal(
            sample(model, positive, negative), sample(patched_model, patched_positive, patched_negative)
        ),
    }


@torch.inference_mode()
def effects(checkpoint: str) -> dict:
    """How much each part of an identity changes the picture, and whether zero strengths change nothing."""
    identity = make_identity(checkpoint)
    text = "photo of <ann> smiling"
    _, clip = apply(checkpoint, identity)
    positive, negative = encode(clip, text), encode(clip, "blurry")
    plain = load(checkpoint)[0]

    def picture(**options):
        return sample(apply(checkpoint, identity, **options)[0], positive, negative)

    tokens_only = sample(plain, positive, negative)
    zero_model, zero_clip = apply(checkpoint, identity, strength=0.0, kv_strength=0.0)
    return {
        "adapter": error(picture(), tokens_only),
        "kv": error(picture(strength=0.0, kv_strength=1.0), tokens_only),
        "negative strength": error(picture(strength=-1.0), tokens_only),
        "zero is the input itself": zero_model is plain and zero_clip is load(checkpoint)[1],
        "never": error(picture(start=1.0), tokens_only),
        "first half": error(picture(end=0.5), tokens_only),
        "first half against all": error(picture(end=0.5), picture()),
    }


@torch.inference_mode()
def counts(checkpoint: str, steps: int) -> dict:
    """How often the adapter and the UNet run for one picture, and the UNet's batches."""
    adapter, calls = pack("idea_core").Adapter, {"adapter": 0, "unet": []}
    attended = adapter.attended

    def count(self, *inputs):
        calls["adapter"] += 1
        return attended(self, *inputs)

    def record(executor, x, *rest, **more):
        calls["unet"].append(x.shape[0])
        return executor(x, *rest, **more)

    adapter.attended = count
    try:
        model, clip = apply(checkpoint, make_identity(checkpoint))
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record)
        positive, negative = encode(clip, "photo of <ann>"), encode(clip, "blurry")
        sample(model, positive, negative, steps)
        sample(model, positive, negative, steps)
    finally:
        adapter.attended = attended
    return calls


@torch.inference_mode()
def schedule(checkpoint: str) -> dict:
    """end_percent against a run switched by hand with ComfyUI's own timestep ranges."""
    identity = make_identity(checkpoint)
    model, clip = apply(checkpoint, identity, end=0.5)
    positive, negative = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    key = next(key for key in positive[0][1] if key.startswith("idea_"))
    with_person = [[positive[0][0] + positive[0][1][key], {}]]
    without = [[positive[0][0], {}]]
    ranges = nodes.ConditioningSetTimestepRange()
    by_hand = ranges.set_range(with_person, 0.0, 0.5)[0] + ranges.set_range(without, 0.5001, 1.0)[0]
    expected = sample(load(checkpoint)[0], by_hand, negative, steps=6)
    return {"error": error(sample(model, positive, negative, steps=6), expected)}


@torch.inference_mode()
def composed(checkpoint: str) -> dict:
    """Pictures through stock nodes, against the difference put into the conditioning itself."""
    identity = make_identity(checkpoint)
    model, clip = apply(checkpoint, identity)
    plain = load(checkpoint)[0]
    negative = encode(clip, "blurry")

    def baked(conditioning):
        out = []
        for context, entries in conditioning:
            key = next((key for key in entries if key.startswith("idea_")), None)
            rest = {name: value for name, value in entries.items() if name != key}
            if key:
                context = context.clone()
                context[:, : entries[key].shape[1]] += entries[key]
            out.append([context, rest])
        return out

    person, forest = encode(clip, "photo of <ann>"), encode(clip, "in a forest")
    cases = {
        "concat": nodes.ConditioningConcat().concat(person, forest)[0],
        "combine": nodes.ConditioningCombine().combine(person, forest)[0],
        "area": nodes.ConditioningSetArea().append(person, 32, 32, 0, 0, 1.0)[0] + forest,
        "long": encode(clip, "a very " * 60 + "photo of <ann>"),
    }
    errors = {
        name: error(sample(model, case, negative), sample(plain, baked(case), negative)) for name, case in cases.items()
    }
    foreign = encode(load(checkpoint)[1], "blurry")
    errors["negative of the unpatched clip"] = error(
        sample(model, person, foreign), sample(plain, baked(person), foreign)
    )
    return errors


@torch.inference_mode()
def two_people(checkpoint: str) -> dict:
    """Chained Apply nodes: each acts on the prompts that hold its name."""
    ann, bob = make_identity(checkpoint), make_identity(checkpoint, seed=9, name="bob")
    model, clip = apply(checkpoint, bob, on=apply(checkpoint, ann))
    both = encode(clip, "photo of <ann> and <bob>")
    alone = encode(clip, "photo of <ann>")
    single = encode(apply(checkpoint, ann)[1], "photo of <ann>")
    negative = encode(clip, "blurry")
    return {
        "both": sum(key.startswith("idea_") for key in both[0][1]),
        "alone": sum(key.startswith("idea_") for key in alone[0][1]),
        "same as single": torch.equal(alone[0][0], single[0][0]),
        "picture": error(sample(model, alone, negative), sample(apply(checkpoint, ann)[0], single, negative)),
    }


@torch.inference_mode()
def tokens(checkpoint: str, texts: list[str]) -> list:
    """Token lists with Apply: "v0", "v1" where the person's vectors stand, else [id, weight]."""
    identity = make_identity(checkpoint)
    _, clip = apply(checkpoint, identity)
    vectors = next(iter(identity.tokens.values())).float()

    def plain(token, weight):
        if not torch.is_tensor(token):
            return [int(token), weight]
        return [f"v{next(i for i, vector in enumerate(vectors) if torch.equal(vector, token))}", weight]

    out = []
    for text in texts:
        chunks = next(iter(clip.tokenize(text).values()))
        out.append([[plain(token, weight) for token, weight in chunk] for chunk in chunks])
    return out


def stock_tokens(checkpoint: str, text: str) -> list:
    chunks = next(iter(load(checkpoint)[1].tokenize(text).values()))
    return [[[int(token), weight] for token, weight in chunk] for chunk in chunks]


@torch.inference_mode()
def stock_nodes(checkpoint: str, folder: str) -> dict:
    """The saved file read by ComfyUI's own embedding: prompts and LoRA loader, against Apply."""
    import folder_paths

    identity = make_identity(checkpoint)
    path = identity.save(f"{folder}/{checkpoint}_person.safetensors")
    model, clip, _ = load(checkpoint)
    folder_paths.add_model_folder_path("loras", folder)
    embedder = clip.clone()
    inner = getattr(embedder.tokenizer, embedder.tokenizer.clip)
    previous, inner.embedding_directory = inner.embedding_directory, [folder]
    try:
        stock = encode(embedder, f"photo of embedding:{path.stem} smiling")
    finally:
        inner.embedding_directory = previous
    patched_model, patched_clip = apply(checkpoint, identity, strength=0.0, kv_strength=0.7)
    ours = encode(patched_clip, "photo of <ann> smiling")
    lora_model, _ = nodes.LoraLoader().load_lora(model, clip, path.name, 0.7, 0.0)
    negative = encode(clip, "blurry")
    return {
        "tokens": torch.equal(stock[0][0], ours[0][0]),
        "kv": error(sample(patched_model, ours, negative), sample(lora_model, ours, negative)),
    }


@torch.inference_mode()
def unet_call(checkpoint: str, target: str, strength: float = 0.8, kv_strength: float = 0.6) -> dict:
    """One real sampling step with everything applied; what the UNet was given and gave, for a check elsewhere."""
    identity = make_identity(checkpoint)
    model, clip = apply(checkpoint, identity, strength, kv_strength)
    seen = {}

    def record(executor, x, timesteps, context=None, *rest, **more):
        output = executor(x, timesteps, context, *rest, **more)
        seen.update(x=x, timesteps=timesteps, context=context, output=output)
        return output

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record)
    text = "photo of <ann> smiling"
    sample(model, encode(clip, text), [], steps=1, cfg=1.0)
    plain, plain_clip, _ = load(checkpoint)
    ids = [token for token, _ in next(iter(plain_clip.tokenize("photo of x x smiling").values()))[0]]
    save_file({key: tensor.float().clone().contiguous() for key, tensor in seen.items()}, f"{target}/call.safetensors")
    identity.save(f"{target}/identity.safetensors")
    return {
        "ids": ids,
        "strength": strength,
        "kv_strength": kv_strength,
        "config": dict_of(plain.model.model_config.unet_config),
    }


def dict_of(config: dict) -> dict:
    return {key: value for key, value in config.items() if isinstance(value, (int, float, str, bool, list, type(None)))}


@torch.inference_mode()
def clones(checkpoint: str) -> dict:
    """Clones, LoRA loaders and CLIP Set Last Layer after Apply; the base afterwards."""
    identity = make_identity(checkpoint)
    model, clip = apply(checkpoint, identity)
    before = sample_plainly(checkpoint)
    reference = encode(clip, "photo of <ann>")
    cloned = encode(clip.clone().clone(), "photo of <ann>")
    other_layer = encode(nodes.CLIPSetLastLayer().set_last_layer(clip, -3)[0], "photo of <ann>")
    negative = encode(clip, "blurry")
    return {
        "clone": torch.equal(reference[0][0], cloned[0][0]),
        "layer": error(reference[0][0], other_layer[0][0]),
        "layer carries": any(key.startswith("idea_") for key in other_layer[0][1]),
        "model clone": error(sample(model.clone().clone(), reference, negative), sample(model, reference, negative)),
        "base unchanged": sample_plainly(checkpoint) == before,
    }


def refusal(checkpoint: str, case: str) -> str:
    """The error of a MODEL, CLIP and identity that do not fit."""
    model, clip, _ = load(checkpoint)
    other_model, other_clip, _ = load("tiny_sd15")
    try:
        if case == "clip of another family":
            apply(checkpoint, make_identity(checkpoint), on=(model, other_clip))
        elif case == "identity of another family":
            apply(checkpoint, make_identity("tiny_sd15"))
        elif case == "kv of another checkpoint":
            identity = make_identity(checkpoint)
            kv = {key.replace("input_blocks.1", "input_blocks.7"): tensor for key, tensor in identity.kv.items()}
            replace = importlib.import_module("dataclasses").replace
            apply(checkpoint, replace(identity, kv=kv), kv_strength=1.0)
    except pack("idea_core").IdeaError as refused:
        return str(refused)
    return "accepted"
