"""Training inside real ComfyUI."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from inside import INSIDE, in_comfyui

if INSIDE:
    import comfy.model_management
    import comfy.ops
    import comfy.sd
    import folder_paths
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
        progress_of,
        sample,
        sample_plainly,
        training_job,
        weights_hash,
    )

    import nodes

CHECKPOINTS = ["tiny_sd15", "tiny_sd21", "tiny_sd21_v"]


@pytest.mark.parametrize("checkpoint", ["tiny_sd15", pytest.param("tiny_sdxl", marks=pytest.mark.slow)])
@in_comfyui
def test_captions_are_tokenized_once_and_encoded_the_same(checkpoint):
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        captions = [backbone.read(text) for text in ("a {}", "photo of {} in the rain", "{}")]
        widths = {key: model.transformer.get_input_embeddings().weight.shape[1] for key, model in _texts(backbone)}
        generator = torch.Generator().manual_seed(0)
        tokens = {key: torch.randn(2, width, generator=generator).requires_grad_() for key, width in widths.items()}
        table, rows = backbone.tabulate(captions, 2), torch.tensor([1, 0, 1])
        results = []
        for kept in (False, True):
            if kept:
                with _no_tokenizing(backbone):
                    condition = table.encode(rows, tokens)
            else:
                vectors = {key: [own] * 3 for key, own in tokens.items()}
                condition = backbone.encode([captions[row] for row in rows], vectors)
            parts = [condition.context, *([] if condition.pooled is None else [condition.pooled])]
            torch.stack([part.square().sum() for part in parts]).sum().backward()
            results.append([part.detach() for part in parts] + [own.grad for own in tokens.values()])
            for own in tokens.values():
                own.grad = None
        assert len(results[0]) == len(results[1]) >= 2
        assert all(torch.equal(one, other) for one, other in zip(*results))
        assert all("process_tokens" not in vars(model) for _, model in _texts(backbone))


def _texts(backbone):
    return backbone._text.models.items()


@contextmanager
def _no_tokenizing(backbone) -> Iterator[None]:
    """While open, ComfyUI's own tokenization is an error."""
    kind = type(next(model for _, model in _texts(backbone)))
    own = kind.process_tokens

    def refused(*_):
        raise AssertionError("tokenized again")

    kind.process_tokens = refused
    try:
        yield
    finally:
        kind.process_tokens = own


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
def test_noise_and_target_follow_the_schedule(checkpoint):
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        assert backbone.schedule.prediction == ("v" if checkpoint.endswith("_v") else "eps")
        generator = torch.Generator().manual_seed(0)
        latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
        timesteps = torch.tensor([0, 400, 999])
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alpha = (1 - betas).cumprod(0)[timesteps].view(3, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        target = noise if backbone.schedule.prediction == "eps" else velocity
        assert error(backbone.schedule.add_noise(latents, noise, timesteps), noisy) < 1e-5
        assert error(backbone.schedule.target(latents, noise, timesteps), target) < 1e-4


@contextmanager
def little_memory() -> Iterator[None]:
    """ComfyUI's own attention now saves memory where it can."""
    free = comfy.model_management.get_free_memory
    comfy.model_management.get_free_memory = lambda _device=None, both=False: (1, 1) if both else 1
    try:
        yield
    finally:
        comfy.model_management.get_free_memory = free


@pytest.mark.parametrize("checkpoint", ["tiny_sd15", pytest.param("tiny_sd21", marks=pytest.mark.slow)])
@in_comfyui
def test_gradients_are_right(checkpoint):
    """Against torch's own means for in-place forwards, and against a finite difference."""
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        encoder, width = next(iter(pack("idea_core").BASE_MODELS[backbone.base_model].encoders.items()))
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(2, width, generator=generator).requires_grad_()
        weights = torch.randn(1, 77, width, generator=generator)
        prompt, place = (
            [pack("idea_core.text.tokenized").SplitPrompt({encoder: [320, 1125]}, {encoder: [530]})],
            {encoder: [vectors]},
        )
        ours = torch.autograd.grad((backbone.encode(prompt, place).context * weights).sum(), vectors)[0]
        model = backbone._text.models[encoder]
        special = model.special_tokens
        row = [special["start"], 320, 1125, *vectors, 530, special["end"]] + [special["pad"]] * 70
        with torch.no_grad():
            plain = model([row])[0]
        assert torch.equal(plain, backbone.encode(prompt, place).context.detach())
        assert backbone.encode(prompt, place).places.tolist() == [[3, 4]]
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            reference = torch.autograd.grad((model([row])[0] * weights).sum(), vectors)[0]
        assert error(ours, reference) <= 1e-6 * reference.abs().max()

        context = backbone.encode(prompt, place).context.detach().requires_grad_()
        noisy, timestep = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([500])
        direction = torch.randn(1, 77, width, generator=generator)
        condition = pack("idea_core").TextCondition

        def loss(context):
            return backbone.predict(noisy, timestep, condition(context)).square().sum()

        def slope() -> float:
            return (torch.autograd.grad(loss(context), context)[0] * direction).sum().item()

        with torch.no_grad():
            step = 1e-2
            finite = ((loss(context + step * direction) - loss(context - step * direction)) / (2 * step)).item()
        assert slope() == pytest.approx(finite, rel=2e-2)
        with little_memory():
            scarce = slope()
        assert scarce == pytest.approx(slope())


@in_comfyui
def test_weights_that_were_made_in_inference_mode_are_told_after_a_cast():
    """Weights that a loader made in inference mode and that were cast since: torch forgets it, autograd does not."""
    with torch.inference_mode():
        layer = torch.nn.Linear(4, 4).requires_grad_(False)
    layer.to(torch.float64)
    assert not layer.weight.is_inference()
    before = layer.weight.clone()
    pack("nodes.comfy.autograd").GradientWeights().swap_in(layer)
    assert torch.equal(layer.weight, before)
    inputs = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    layer(inputs).sum().backward()
    assert error(inputs.grad, before.sum(0).expand(2, -1)) < 1e-12


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
def test_training_sees_what_sampling_gives(checkpoint):
    """The text condition, the latents, and the UNet with K/V deltas."""
    model, clip, vae = load(checkpoint)
    identity = make_identity(checkpoint)
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
            ours = backbone.encode([backbone.read("a photo of a dog")]).context
            with backbone.kv_deltas(identity.kv):
                with_kv = backbone.predict(x, timesteps.long(), condition(context))
            without = backbone.predict(x, timesteps.long(), condition(context))
        encoded = model.model.process_latent_out(backbone.encode_images(photos()).mean)
    assert torch.equal(ours, stock[0][0])
    assert error(encoded, latents) <= 1e-6
    assert error(with_kv, output) <= 1e-5
    assert error(without, output) > 1e-3  # the deltas act, and only while they are open
    assert plain == sample_plainly(checkpoint)


@pytest.mark.parametrize("checkpoint", [pytest.param("tiny_sd15", marks=pytest.mark.slow), "tiny_sd21"])
@in_comfyui
def test_training_sees_the_clip_layer_that_is_set_and_no_other(checkpoint):
    model, clip, vae = load(checkpoint)
    early = nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0]
    text = "a photo of a dog"
    for one, other in ((clip, early), (early, clip)):
        with torch.inference_mode():
            expected = encode(one, text)[0][0]
            encode(other, text)  # it leaves its layer set in the text encoder that both share
        with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(model, one, vae) as backbone:
            assert torch.equal(backbone.encode([backbone.read(text)]).context.detach(), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "enough"), [("tiny_sd15", 0.0), ("tiny_sd21_v", 0.8)])
@in_comfyui
def test_the_loss_of_a_fixed_batch_falls_by_a_fifth_in_30_steps(checkpoint, enough):
    """With the default learning rates, until three losses in a row are `enough` of the first."""
    config, losses = pack("idea_core.training.config").TrainConfig(batch_size=2), []
    with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint)) as backbone:
        trainer = pack("idea_core.training.trainer").Trainer.of(
            backbone, photos(), face(), config, NAMES, ["a photo of {}"]
        )
        person, batch = trainer.person, trainer.sampler.draw()
        start = {key: tensor.clone() for key, tensor in (person.state_dict() | person.kv.state_dict()).items()}
        with trainer.active():
            while len(losses) < 30 and max([*losses[-3:], 9e9][:3]) > enough * (losses or [9e9])[0]:
                losses.append(trainer.step(batch).item())
        end = person.state_dict() | person.kv.state_dict()
        moved = {key: error(start[key], end[key]) for key in start}
    assert max(losses[-3:]) <= 0.8 * losses[0]
    assert moved.pop("anchor") == moved.pop("id_embeds") == 0
    assert min(moved.values()) > 0
    assert any("attn2.to_k.lora_up" in key for key in moved)


@dataclass
class Run:
    """One run of the training node's job."""

    seen: list  # (step, preview) of its bar
    outcome: str  # digest of the person, or "interrupted"
    kept: list  # (suffix, step) of the files that it left


def train(
    checkpoint: str, name: str, steps: int = 2, interrupt_at: int | None = None, settings: dict = {}, looks: int = 0
) -> Run:
    """Runs the training node's job; MODEL and CLIP stay as they were.

    Args:
        looks: steps between two previews.
    """
    model, clip, vae = load(checkpoint)
    before, sampled = weights_hash(model, clip.patcher), sample_plainly(checkpoint)
    config = pack("idea_core.training.config").TrainConfig(**{"steps": steps, "batch_size": 1, **settings})
    job = training_job(name, config, watch=pack("idea_core.training.preview").WatchConfig(looks))
    with progress_of(steps, interrupt_at) as seen:
        try:
            with torch.inference_mode():
                identity, _ = job.run(model, clip, vae, None, None)
            outcome = identity.digest()
        except comfy.model_management.InterruptProcessingException:
            outcome = "interrupted"
    assert weights_hash(model, clip.patcher) == before
    assert sample_plainly(checkpoint) == sampled
    files = sorted(pack("nodes.comfy.paths").output_folder().glob(f"autosave/{name}-*"))
    return Run(seen, outcome, [(path.suffix, path.stem.partition("-step-")[2]) for path in files])


def steps_of(run: Run) -> list[int]:
    return [step for step, _ in run.seen]


def forget(name: str) -> None:
    """Remove a training's files."""
    for path in pack("nodes.comfy.paths").output_folder().glob(f"autosave/{name}-*"):
        path.unlink()


def learnt(name: str) -> dict:
    """What is kept of a training that broke off."""
    (path,) = pack("nodes.comfy.paths").output_folder().glob(f"autosave/{name}-*-step-*.safetensors")
    identity = pack("idea_core").Identity.load(path)
    return {"losses": len(identity.training["losses"]), "fingerprint": identity.training["fingerprint"]}


@in_comfyui
def test_training_changes_no_weight_and_works_again():
    """`train` holds weights and pictures to what they were before."""
    first = train("tiny_sd15", "first")
    again = train("tiny_sd15", "second", settings={"seed": 1})
    assert steps_of(first) == steps_of(again) == [1, 2]
    assert len({first.outcome, again.outcome, "interrupted"}) == 3


@in_comfyui
def test_cancel_keeps_what_was_learnt_and_the_next_run_goes_on_to_the_same_end():
    whole = train("tiny_sd15", "cancelled", steps=4)
    assert steps_of(whole) == [1, 2, 3, 4]
    assert whole.kept == [(".safetensors", "")]
    forget("cancelled")
    broken = train("tiny_sd15", "cancelled", steps=4, interrupt_at=2)
    assert broken.outcome == "interrupted"
    assert steps_of(broken) == [1, 2]
    assert broken.kept == [(".safetensors", "00002"), (".training", "")]
    assert learnt("cancelled") == {"losses": 2, "fingerprint": ""}
    resumed = train("tiny_sd15", "cancelled", steps=4)
    assert steps_of(resumed) == [3, 4]
    assert resumed.outcome == whole.outcome
    assert resumed.kept == [(".safetensors", "00002"), (".safetensors", "")]


@pytest.mark.slow
@in_comfyui
def test_a_diverging_training_says_so_and_keeps_what_was_learnt():
    trainer = pack("idea_core.training.trainer").Trainer
    step = trainer.step

    def spoiled(self, batch):
        if len(self.losses) == 10:
            self.optimizer.param_groups[1]["lr"] = 1e30
        return step(self, batch)

    config = pack("idea_core.training.config").TrainConfig(steps=30, batch_size=1, kv_rank=0, kv_lr=1e-6)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(trainer, "step", spoiled)
        with pytest.raises(pack("idea_core").IdeaError, match="Expected a finite loss.*Lower the learning rates"):
            training_job("wild", config).run(*load("tiny_sd15"), None, None)
    assert learnt("wild")["losses"] == 10
    assert steps_of(train("tiny_sd15", "tame")) == [1, 2]


@in_comfyui
def test_pictures_on_the_way_are_shown_and_change_nothing():
    plain = train("tiny_sd15", "shown")
    forget("shown")
    shown = train("tiny_sd15", "shown", looks=1)
    assert shown.outcome == plain.outcome
    previews = [(step, preview[0], preview[1].width) for step, preview in shown.seen if preview]
    assert previews == [(step, "JPEG", 1024) for step in (1, 2)]  # before over after, beside the loss


@in_comfyui
def test_the_training_says_what_it_does_and_where_the_person_is():
    said, view = [], pack("nodes.comfy.training_view")
    with pytest.MonkeyPatch.context() as patch:
        for module in (view, pack("nodes.training_job"), pack("nodes.comfy.progress")):
            patch.setattr(module, "show_on_node", lambda text, _node_id: said.append(text))
        train("tiny_sd15", "told", looks=1)
        train("tiny_sd15", "told", looks=1)
    kept = r"output/idea/autosave/told-\w+\.safetensors"
    expected = ["loading the checkpoint …", "encoding 2 photos …", "drawing the person before the training …"]
    assert said[:4] == [*expected, "training …"] and said[-3] == "2 of 2 steps"
    assert re.fullmatch(f"<told> is trained in 2 steps, kept in {kept}", said[-2])
    assert re.fullmatch(f"<told> was trained from the same inputs before: {kept}", said[-1])


@in_comfyui
def test_the_sheet_of_a_training_has_labels_and_the_latest_images():
    sheet = pack("nodes.comfy.training_view").training_sheet
    black, white = torch.zeros(2, 64, 64, 3), torch.ones(2, 64, 64, 3)
    both = sheet({"before the training": black, "after 10 steps": white}, [2.0, 1.0])
    assert both.shape == (1, 2 * (256 + 28), 1024, 3)
    assert both[0, 40:280, :512].max() == 0 and both[0, 320:560, :512].min() == 1
    assert both[0, :28, :512].max() > 0.7 and both[0, 284:312, :512].max() > 0.7  # the labels
    assert not torch.equal(both, sheet({"before the training": black, "after 20 steps": white}, [2.0, 1.0]))
    assert sheet({}, [2.0, 1.0]).shape == (1, 512, 512, 3)


@in_comfyui
def test_other_precisions_and_checkpointing_give_the_same_gradients():
    checkpoint = "tiny_sd15"
    sampled = sample_plainly(checkpoint)
    losses, gradients, calls = {}, {}, Counter()
    config = pack("idea_core.training.config").TrainConfig(batch_size=2)
    ways = {"fp32": ("fp32", False), "checkpointed": ("fp32", True), "bf16": ("bf16", False)}
    for way, options in ways.items():
        with (
            torch.inference_mode(),
            pack("nodes.comfy.backbone").ComfyBackbone(*load(checkpoint), *options) as backbone,
        ):
            blocks = [part for part in backbone._network.modules() if type(part).__name__ == "ResBlock"]
            hooks = [
                part.in_layers[0].register_forward_hook(lambda *_, way=way: calls.update([way])) for part in blocks
            ]
            trainer = pack("idea_core.training.trainer").Trainer.of(backbone, photos(), face(), config, NAMES)
            with trainer.active():
                losses[way] = trainer._gradients(trainer.sampler.draw()).item()
            parameters = [p for group in trainer.optimizer.param_groups for p in group["params"] if p.grad is not None]
            gradients[way] = [parameter.grad.clone() for parameter in parameters]
            for hook in hooks:
                hook.remove()
            patched = [part for part in backbone._network.modules() if "forward" in vars(part)]
        assert not patched
    assert losses["checkpointed"] == losses["fp32"]
    assert max(error(a, b) for a, b in zip(gradients["fp32"], gradients["checkpointed"])) < 1e-6
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)
    single, half = (torch.cat([g.flatten() for g in gradients[way]]) for way in ("fp32", "bf16"))
    assert torch.nn.functional.cosine_similarity(single, half, dim=0) > 0.98
    assert calls["checkpointed"] / calls["fp32"] > 1.5  # the second time it stops where nothing more is needed
    assert sample_plainly(checkpoint) == sampled


@in_comfyui
def test_the_same_inputs_are_trained_once():
    first = train("tiny_sd15", "once")
    again = train("tiny_sd15", "once")
    changed = train("tiny_sd15", "once", settings={"kv_lr": 1e-3})
    assert (steps_of(first), steps_of(again), steps_of(changed)) == ([1, 2], [], [1, 2])
    assert first.outcome == again.outcome != changed.outcome
    assert changed.kept == [(".safetensors", "")] * 2


@in_comfyui
def test_a_training_is_found_again_by_every_one_of_its_inputs():
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
    assert of() == first  # of models loaded anew
    pixel = photos()
    pixel[0, 5, 5, 0] += 1 / 255
    changed = {
        "other pixel": of(images=pixel),
        "other face": of(arcface=face().flip(0)),
        "other name": of(name="bob"),
        "other seed": of(seed=1),
        "with lora": of(change=with_lora),
        "other layer": of(change=lambda model, clip: (model, nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0])),
        "other checkpoint": of("tiny_sd21"),
    }
    assert len({first, *changed.values()}) == 8, changed


@pytest.mark.parametrize("shape", [[1, 0, 10, 3], [0, 64, 64, 3]])
@in_comfyui
def test_photos_without_pixels_are_refused(shape):
    engine = pack("nodes.load_face_model").LoadFaceModel.execute("testpack", "cpu").args[0]
    model, clip, vae = load("tiny_sd15")
    embeds = pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1))
    settings = {"preset": "fast", "steps": 1, "seed": 0}
    with pytest.raises(pack("idea_core").IdeaError, match="photo 0 with pixels|at least one photo"):
        pack("nodes.id_encode").IDEncode.execute(engine, torch.zeros(shape))
    with pytest.raises(pack("idea_core").IdeaError, match="Expected photos with pixels, got shape"):
        pack("nodes.train").EnhancerTrain.execute(
            model, clip, vae, embeds, torch.zeros(shape), name="x", resolution=64, **settings
        )


@in_comfyui
def test_a_note_that_is_too_long_is_said_with_its_photo_before_anything_is_encoded():
    """The person has two tokens, the comma one, and each word one; without a VAE, nothing can be encoded."""
    model, clip, _ = load("tiny_sd15")
    config = pack("idea_core").TrainConfig(steps=1, batch_size=1)

    def train_with_note(words: int) -> None:
        noted = pack("idea_core.training.batches").Photos(photos(), ["", "hat " * words])
        with pack("nodes.comfy.backbone").ComfyBackbone(model, clip, None) as backbone:
            pack("idea_core").Trainer.of(backbone, [noted], face(), config, NAMES, ["{}"])

    with pytest.raises(AttributeError, match="'NoneType' object has no attribute"):
        train_with_note(72)
    with pytest.raises(pack("idea_core").IdeaError) as refused:
        train_with_note(73)
    said = "Expected captions of at most 75 tokens, got 76 for photo 1, its note included. Say it in fewer words."
    assert str(refused.value) == said


@in_comfyui
def test_half_weights_train_as_single_ones_and_leave_the_model_as_it_was():
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
    half, single = losses
    assert half == pytest.approx(single, rel=1e-2)
    assert layer.weight.dtype == torch.float16
    assert weights_hash(model) == before
    assert torch.equal(fresh, patched())
    assert sum(len(getattr(module, "weight_function", ())) for module in model.model.modules()) == 0


@in_comfyui
def test_cancel_does_not_wait_for_the_checkpoints_hash():
    module, start = pack("nodes.comfy.checkpoint"), time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "checkpoint_of", lambda *_: time.sleep(3))
        with (
            pytest.raises(comfy.model_management.InterruptProcessingException),
            module.checkpoint_meanwhile({}, "1") as hashed,
        ):
            comfy.model_management.interrupt_current_processing()
            hashed()
    assert time.monotonic() - start < 2


@in_comfyui
def test_a_node_says_how_fast_it_is_and_what_is_left():
    """By a made-up clock: (seconds, done of all, in this run)."""
    module, said = pack("nodes.comfy.progress"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
        patch.setattr(module, "show_on_node", lambda text, _node_id: said.append(text))
        for total, shown in (
            (8, [(10, 2, False), (20, 4, True), (50, 6, True), (50, 6, True), (65, 7, True)]),
            (100, [(10, 1, True), (11, 11, True)]),
        ):
            progress = module.NodeProgress(total, None, "pictures")
            for now, done, here in shown:  # noqa: B007
                progress.show(done, None, here)
    assert said == [
        "2 of 8 pictures",  # they were there
        "4 of 8 pictures",
        "6 of 8 pictures, 15.0 s each, 30 s left",
        "7 of 8 pictures, 15.0 s each, 15 s left",
        "1 of 100 pictures",
        "11 of 100 pictures, 10.0 a second, 9 s left",
    ]


@pytest.mark.slow
@in_comfyui
def test_a_training_may_be_cancelled_at_any_moment():
    model, clip, vae = load("tiny_sd15")
    config, chance = pack("idea_core.training.config").TrainConfig(steps=6, batch_size=1), random.Random(0)
    before, cancelled = weights_hash(model, clip.patcher), 0

    def train(name: str) -> str:
        with torch.inference_mode():
            return training_job(name, config).run(model, clip, vae, None, None)[0].digest()

    start = time.monotonic()
    expected = train("unbroken")
    seconds = time.monotonic() - start
    for number in range(20):
        clock = threading.Timer(chance.uniform(0, seconds), comfy.model_management.interrupt_current_processing)
        clock.start()
        try:
            train(f"cancelled{number}")
        except comfy.model_management.InterruptProcessingException:
            cancelled += 1
        finally:
            clock.cancel()
            clock.join()
            comfy.model_management.interrupt_current_processing(False)
        assert weights_hash(model, clip.patcher) == before
        assert train(f"cancelled{number}") == expected  # from where it was cancelled
        forget(f"cancelled{number}")
    forget("unbroken")
    assert cancelled >= 5
