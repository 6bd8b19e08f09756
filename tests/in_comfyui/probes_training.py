"""What the tests look at of a training inside real ComfyUI. Each function returns plain JSON values."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.patcher_extension import WrappersMP
from probes import (
    NAMES,
    apply,
    encode,
    error,
    face,
    load,
    make_identity,
    pack,
    photos,
    sample,
    training_job,
    weights_hash,
)
from safetensors.torch import save_file

import nodes


def train_for_parity(checkpoint: str, vae: str, settings: dict, target: str, names: list[str]) -> list[float]:
    """A training with a given VAE; its losses, and what it trained in a file, for a check elsewhere.

    To its face models each picture is one face: tiny checkpoints draw none.
    """
    model, clip, _ = load(checkpoint)
    with torch.inference_mode():
        vae = nodes.VAELoader().load_vae(vae)[0]
    before = weights_hash(model, clip.patcher, vae.patcher)
    config = pack("idea_core").TrainConfig(**settings)
    engine = nodes.NODE_CLASS_MAPPINGS["IDEA_LoadFaceModel"].execute("testpack", "cpu").args[0].engine()
    engine.detect = lambda photo: [pack("idea_core.faces").Face.aligned(len(photo))]
    try:
        with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(model, clip, vae) as backbone:
            likeness = pack("idea_core.training.likeness_loss").LikenessLoss.of(backbone, engine, config)
            trainer = pack("idea_core").Trainer.of(backbone, photos(), face(), config, names, likeness=likeness)
            losses = trainer.run()
            trained = trainer.person.state_dict() | trainer.person.kv.state_dict()
    finally:
        del engine.detect
    assert weights_hash(model, clip.patcher, vae.patcher) == before
    save_file({key: tensor.clone() for key, tensor in trained.items()}, target)
    return list(losses)


def fixed_batch(checkpoint: str, steps: int, enough: float) -> dict:
    """One batch, seen again and again with the default rates, until three losses in a row are `enough` of the first.

    Returns the losses, and how far each trained part moved.
    """
    config, losses = pack("idea_core.training.config").TrainConfig(batch_size=2), []
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        trainer = pack("idea_core.training.trainer").Trainer.of(
            backbone, photos(), face(), config, NAMES, ["a photo of {}"]
        )
        person, batch = trainer.person, trainer.sampler.draw()
        start = {key: tensor.clone() for key, tensor in (person.state_dict() | person.kv.state_dict()).items()}
        with trainer.active():
            while len(losses) < steps and max([*losses[-3:], 9e9][:3]) > enough * (losses or [9e9])[0]:
                losses.append(trainer.step(batch).item())
        end = person.state_dict() | person.kv.state_dict()
        moved = {key: error(start[key], end[key]) for key in start}
    return {"losses": losses, "moved": moved}


def train(
    checkpoint: str, name: str, steps: int = 2, interrupt_at: int | None = None, settings: dict = {}, looks: int = 0
) -> dict:
    """One run of the training node's job; hashes of MODEL and CLIP before and after.

    Args:
        looks: steps between two previews.
    """
    model, clip, vae = load(checkpoint)
    before = weights_hash(model, clip.patcher)
    config = pack("idea_core.training.config").TrainConfig(**{"steps": steps, "batch_size": 1, **settings})
    job = training_job(name, config, watch=pack("idea_core.training.preview").WatchConfig(looks))
    hook, stop = comfy.utils.PROGRESS_BAR_HOOK, comfy.model_management.interrupt_current_processing
    seen, shown, outcome = [], [], "trained"

    def on_progress(value, total, preview, **_):
        if total != steps:  # the VAE's own bar
            return
        seen.append(value)
        if preview:
            shown.append([value, preview[0], *preview[1].size])
        if value == interrupt_at:
            stop()

    comfy.utils.set_progress_bar_global_hook(on_progress)
    try:
        with torch.inference_mode():
            identity, _ = job.run(model, clip, vae, None, None)
        outcome = identity.digest()
    except comfy.model_management.InterruptProcessingException:
        outcome = "interrupted"
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
    after = weights_hash(model, clip.patcher)
    sampled = sample_plainly(checkpoint)
    files = sorted(pack("nodes.comfy.paths").output_folder().glob(f"autosave/{name}-*"))
    kept = [[path.suffix, path.stem.partition("-step-")[2]] for path in files]
    return {
        "before": before,
        "after": after,
        "seen": seen,
        "shown": shown,
        "outcome": outcome,
        "sample": sampled,
        "kept": kept,
    }


def cancel_at_random(count: int, seed: int = 0) -> dict:
    """Trainings that a user cancels at any moment: how they ended, and whether the base ever changed."""
    model, clip, vae = load("tiny_sd15")
    config, chance = pack("idea_core.training.config").TrainConfig(steps=6, batch_size=1), random.Random(seed)
    before, outcomes, changed = weights_hash(model, clip.patcher), Counter(), 0

    def train(name: str) -> str:
        with torch.inference_mode():
            return training_job(name, config).run(model, clip, vae, None, None)[0].digest()

    start = time.monotonic()
    expected = train("unbroken")
    seconds = time.monotonic() - start
    for number in range(count):
        clock = threading.Timer(chance.uniform(0, seconds), comfy.model_management.interrupt_current_processing)
        clock.start()
        try:
            train(f"cancelled{number}")
            outcomes["trained"] += 1
        except comfy.model_management.InterruptProcessingException:
            outcomes["cancelled"] += 1
        finally:
            clock.cancel()
            clock.join()
            comfy.model_management.interrupt_current_processing(False)
        changed += weights_hash(model, clip.patcher) != before
        outcomes["other results"] += train(f"cancelled{number}") != expected  # from where it was cancelled
        forget(f"cancelled{number}")
    forget("unbroken")
    return {**outcomes, "changed": changed}


def forget(name: str) -> None:
    """Remove a training's files."""
    for path in pack("nodes.comfy.paths").output_folder().glob(f"autosave/{name}-*"):
        path.unlink()


def learnt(name: str) -> dict:
    """What is kept of a training that broke off."""
    (path,) = pack("nodes.comfy.paths").output_folder().glob(f"autosave/{name}-*-step-*.safetensors")
    identity = pack("idea_core").Identity.load(path)
    return {"losses": len(identity.training["losses"]), "fingerprint": identity.training["fingerprint"]}


def diverge(checkpoint: str, name: str) -> str:
    """What a training says whose K/V rate is far too high after ten good steps."""
    trainer = pack("idea_core.training.trainer").Trainer
    step = trainer.step

    def spoiled(self, batch):
        if len(self.losses) == 10:
            self.optimizer.param_groups[1]["lr"] = 1e30
        return step(self, batch)

    trainer.step = spoiled
    config = pack("idea_core.training.config").TrainConfig(steps=30, batch_size=1, kv_rank=0, kv_lr=1e-6)
    try:
        with torch.inference_mode():
            training_job(name, config).run(*load(checkpoint), None, None)
    except pack("idea_core").IdeaError as problem:
        return str(problem)
    finally:
        trainer.step = step


def other_ways(checkpoint: str) -> dict:
    """The same batch in other precisions, and with gradient checkpointing: loss, and gradients by parameter."""
    results, calls = {}, Counter()
    config = pack("idea_core.training.config").TrainConfig(batch_size=2)
    ways = {"fp32": ("fp32", False), "checkpointed": ("fp32", True), "bf16": ("bf16", False)}
    for way, options in ways.items():
        with (
            torch.inference_mode(),
            pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint), *options) as backbone,
        ):
            blocks = [part for part in backbone._unet.modules() if type(part).__name__ == "ResBlock"]
            hooks = [
                part.in_layers[0].register_forward_hook(lambda *_, way=way: calls.update([way])) for part in blocks
            ]
            trainer = pack("idea_core.training.trainer").Trainer.of(backbone, photos(), face(), config, NAMES)
            with trainer.active():
                loss = trainer._gradients(trainer.sampler.draw()).item()
            parameters = [p for group in trainer.optimizer.param_groups for p in group["params"] if p.grad is not None]
            results[way] = loss, [parameter.grad.clone() for parameter in parameters]
            for hook in hooks:
                hook.remove()
            patched = [part for part in backbone._unet.modules() if "forward" in vars(part)]
    first = results["fp32"]
    return {
        "losses": {way: result[0] for way, result in results.items()},
        "checkpointed": max(error(a, b) for a, b in zip(first[1], results["checkpointed"][1])),
        "bf16": torch.nn.functional.cosine_similarity(
            torch.cat([g.flatten() for g in first[1]]), torch.cat([g.flatten() for g in results["bf16"][1]]), dim=0
        ).item(),
        "computed twice": calls["checkpointed"] / calls["fp32"],
        "patched": len(patched),
        "plain": sample_plainly(checkpoint),
    }


def sample_plainly(checkpoint: str) -> str:
    """Hash of what the base model samples."""
    model, clip, _ = load(checkpoint)
    with torch.inference_mode():
        picture = sample(model, encode(clip, "a photo of a dog"), encode(clip, "blurry"), steps=2)
    return hashlib.sha256(picture.numpy().tobytes()).hexdigest()


def loaded_in_inference_mode() -> dict:
    """Weights that a loader made in inference mode and that were cast since: torch forgets it, autograd does not."""
    with torch.inference_mode():
        layer = torch.nn.Linear(4, 4).requires_grad_(False)
    layer.to(torch.float64)
    forgotten, before = not layer.weight.is_inference(), layer.weight.clone()
    pack("nodes.comfy.autograd").GradientWeights().swap_in(layer)
    inputs = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    layer(inputs).sum().backward()
    return {
        "forgotten": forgotten,
        "same": torch.equal(layer.weight, before),
        "gradient": error(inputs.grad, before.sum(0).expand(2, -1)),
    }


@contextmanager
def little_memory() -> Iterator[None]:
    """ComfyUI's own attention now saves memory where it can."""
    free = comfy.model_management.get_free_memory
    comfy.model_management.get_free_memory = lambda _device=None, both=False: (1, 1) if both else 1
    try:
        yield
    finally:
        comfy.model_management.get_free_memory = free


def gradients(checkpoint: str) -> dict:
    """The backbone's gradients against torch's own means for in-place forwards, and against a finite difference."""
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        encoder, width = next(iter(pack("idea_core").BASE_MODELS[backbone.base_model].encoders.items()))
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(2, width, generator=generator).requires_grad_()
        weights = torch.randn(1, 77, width, generator=generator)
        prompt = {encoder: [[320, 1125, *vectors, 530]]}
        ours = torch.autograd.grad((backbone.encode(prompt).context * weights).sum(), vectors)[0]
        model = backbone._text.models[encoder]
        special = model.special_tokens
        row = [special["start"], 320, 1125, *vectors, 530, special["end"]] + [special["pad"]] * 70
        with torch.no_grad():
            plain = model([row])[0]
        context = backbone.encode(prompt).context.detach().requires_grad_()
        noisy, timestep = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([500])
        direction = torch.randn(1, 77, width, generator=generator)
        condition = pack("idea_core").TextCondition

        def loss(context):
            return backbone.predict(noisy, timestep, condition(context)).square().sum()

        def slope() -> float:
            return (torch.autograd.grad(loss(context), context)[0] * direction).sum().item()

        with little_memory():
            scarce = slope()
        with torch.no_grad():
            step = 1e-2
            finite = ((loss(context + step * direction) - loss(context - step * direction)) / (2 * step)).item()
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            reference = torch.autograd.grad((model([row])[0] * weights).sum(), vectors)[0]
        return {
            "text": error(ours, reference),
            "size": reference.abs().max().item(),
            "forward": error(plain, backbone.encode(prompt).context.detach()),
            "slope": slope(),
            "scarce": scarce,
            "finite": finite,
        }


def targets(checkpoint: str) -> dict:
    """The backbone's noise and target against the equations of the noise schedule."""
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        generator = torch.Generator().manual_seed(0)
        latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
        timesteps = torch.tensor([0, 400, 999])
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alpha = (1 - betas).cumprod(0)[timesteps].view(3, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        target = noise if backbone.schedule.prediction == "eps" else velocity
        return {
            "prediction": backbone.schedule.prediction,
            "noisy": error(backbone.schedule.add_noise(latents, noise, timesteps), noisy),
            "target": error(backbone.schedule.target(latents, noise, timesteps), target),
        }


def layers(checkpoint: str) -> dict:
    """What training sees of a prompt against what ComfyUI gives, after another CLIP of the same model was used."""
    model, clip, vae = load(checkpoint)
    early = nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0]
    errors, text = {}, "a photo of a dog"
    for name, one, other in (("default", clip, early), ("early", early, clip)):
        with torch.inference_mode():
            expected = encode(one, text)[0][0]
            encode(other, text)  # it leaves its layer set in the text encoder that both share
        with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(model, one, vae) as backbone:
            prompt = {key: [ids] for key, ids in backbone.tokenize(text).items()}
            with torch.no_grad():
                errors[name] = error(backbone.encode(prompt).context, expected)
    return errors


def parity(checkpoint: str) -> dict:
    """What training sees against what sampling gives: text condition, latents, and the UNet with K/V deltas."""
    model, clip, vae = load(checkpoint)
    identity, delta_of = make_identity(checkpoint), pack("idea_core.method.kv").delta_of
    seen = {}

    def record(executor, x, timesteps, context=None, *rest, **more):
        output = executor(x, timesteps, context, *rest, **more)
        seen.setdefault("call", tuple(tensor.clone() for tensor in (x, timesteps, context, output)))
        return output

    with torch.inference_mode():
        patched, _ = apply(checkpoint, identity, strength=0.0, kv_strength=1.0)
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record)
        stock = encode(clip, "a photo of a dog")
        sample(patched, stock, [], steps=2, cfg=1.0)
        plain = sample_plainly(checkpoint)
        latents = vae.encode(photos())
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(model, clip, vae) as backbone:
        x, timesteps, context, output = (tensor.clone() for tensor in seen["call"])
        condition = pack("idea_core").TextCondition
        with torch.no_grad():
            ours = backbone.encode({key: [ids] for key, ids in backbone.tokenize("a photo of a dog").items()}).context
            with backbone.kv_deltas(lambda name: delta_of(identity.kv, name)):
                with_kv = backbone.predict(x, timesteps.long(), condition(context))
            without = backbone.predict(x, timesteps.long(), condition(context))
        encoded = model.model.process_latent_out(backbone.encode_images(photos()).mean)
    return {
        "context": error(ours, stock[0][0]),
        "latents": error(encoded, latents),
        "unet": error(with_kv, output),
        "kv": error(without, output),
        "plain": plain == sample_plainly(checkpoint),
    }


def fingerprints() -> dict:
    """The hash that finds a training again: for equal inputs loaded anew, and for each single change."""
    fingerprint = pack("nodes.comfy.fingerprint").training_fingerprint

    def of(checkpoint="tiny_sd15", images=None, arcface=None, change=lambda model, clip: (model, clip), **settings):
        model, clip, vae = load(checkpoint)
        model, clip = change(model, clip)
        images, arcface = photos() if images is None else images, face() if arcface is None else arcface
        return fingerprint(model, clip, vae, [images, arcface], {"name": "ann", "seed": 0, **settings})

    def with_lora(model, clip):
        model = model.clone()
        key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
        model.add_patches({key: ("diff", (torch.ones(320, 768) * 1e-3,))}, 0.5)
        return model, clip

    first = of()
    load.cache_clear()
    pixel = photos()
    pixel[0, 5, 5, 0] += 1 / 255
    return {
        "first": first,
        "loaded anew": of(),
        "other pixel": of(images=pixel),
        "other face": of(arcface=face().flip(0)),
        "other name": of(name="bob"),
        "other seed": of(seed=1),
        "with lora": of(change=with_lora),
        "other layer": of(change=lambda model, clip: (model, nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0])),
        "other checkpoint": of("tiny_sd21"),
    }


def no_pixels(shape: list[int]) -> list[str]:
    """What ID Encode and ID-Enhancer Train say of an image of this shape."""
    said = []
    engine = pack("nodes.load_face_model").LoadFaceModel.execute("testpack", "cpu").args[0]
    model, clip, vae = load("tiny_sd15")
    embeds = pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1))
    settings = {"preset": "fast", "steps": 1, "seed": 0}
    for run in (
        lambda image: pack("nodes.id_encode").IDEncode.execute(engine, image),
        lambda image: pack("nodes.train").EnhancerTrain.execute(
            model, clip, vae, embeds, image, name="x", resolution=64, **settings
        ),
    ):
        try:
            run(torch.zeros(shape))
        except pack("idea_core").IdeaError as refused:
            said.append(str(refused))
    return said


def long_note(words: int) -> str:
    """What a training says of a second photo whose note has so many words; without a VAE, nothing can be encoded."""
    model, clip, _ = load("tiny_sd15")
    noted = pack("idea_core.training.batches").Photos(photos(), ["", "hat " * words])
    config = pack("idea_core").TrainConfig(steps=1, batch_size=1)
    try:
        with pack("nodes.comfy.backbone").ComfyBackbone(model, clip, None) as backbone:
            pack("idea_core").Trainer.of(backbone, [noted], face(), config, NAMES, ["{}"])
    except (pack("idea_core").IdeaError, AttributeError) as refused:
        return str(refused)


def half_precision() -> dict:
    """Training a UNet of half weights without manual cast, as on a GPU; then a partial load with a weight patch."""
    path = folder_paths.get_full_path("checkpoints", "tiny_sd15.safetensors")
    options = {"dtype": torch.float16, "custom_operations": comfy.ops.disable_weight_init}
    with torch.inference_mode():
        model, _, _, _ = comfy.sd.load_checkpoint_guess_config(path, model_options=options)
    _, clip, vae = load("tiny_sd15")
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    layer = model.get_model_object(key)
    text = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(0)).half()

    def patched() -> torch.Tensor:
        """The layer's output with a weight patch, loaded as on a card with too little memory."""
        patcher = model.clone()
        patcher.add_patches({f"{key}.weight": ("diff", (torch.ones(320, 768) * 0.1,))}, 1.0)
        with torch.inference_mode():
            patcher.patch_model(torch.device("cpu"), lowvram_model_memory=64)
            output = layer(text)
            patcher.detach()
        return output

    before, fresh = weights_hash(model), patched()
    losses = []
    for backbone_model in (model, load("tiny_sd15")[0]):
        config = pack("idea_core").TrainConfig(steps=3, batch_size=1)
        with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(backbone_model, clip, vae) as backbone:
            trainer = pack("idea_core").Trainer.of(backbone, photos(), face(), config, NAMES)
            losses.append(trainer.run())
    hooks = sum(len(getattr(module, "weight_function", ())) for module in model.model.modules())
    return {
        "losses": losses,
        "dtype": str(layer.weight.dtype),
        "unchanged": before == weights_hash(model),
        "patch": error(fresh.float(), patched().float()),
        "hooks": hooks,
    }


def cancelled_while_hashing(seconds: float) -> float:
    """How long a cancelled node waits for the hash of a checkpoint that takes so many seconds."""
    module, start = pack("nodes.comfy.checkpoint"), time.monotonic()
    hash_of, module.checkpoint_of = module.checkpoint_of, lambda *_: time.sleep(seconds)
    try:
        with module.checkpoint_meanwhile({}, "1") as hashed:
            comfy.model_management.interrupt_current_processing()
            hashed()
    except comfy.model_management.InterruptProcessingException:
        return time.monotonic() - start
    finally:
        module.checkpoint_of = hash_of


def paces() -> list[str]:
    """What a slow and a fast node say of themselves, by a made-up clock: (seconds, done of all, in this run)."""
    module, said = pack("nodes.comfy.progress"), []
    clock, module.time = module.time, SimpleNamespace(monotonic=lambda: now)
    show, module.show_on_node = module.show_on_node, lambda text, _node_id: said.append(text)
    try:
        for total, shown in (
            (8, [(10, 2, False), (20, 4, True), (50, 6, True), (50, 6, True), (65, 7, True)]),
            (100, [(10, 1, True), (11, 11, True)]),
        ):
            progress = module.NodeProgress(total, None, "pictures")
            for now, done, here in shown:  # noqa: B007
                progress.show(done, None, here)
    finally:
        module.time, module.show_on_node = clock, show
    return said
