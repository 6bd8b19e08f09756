"""Changes to keys and values on a person's prompts alone: computed once for each text, not at each step."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch
from inside import INSIDE, in_comfyui

if INSIDE:
    from comfy.patcher_extension import WrappersMP
    from probes import apply, encode, load, make_identity, pack, sample

    import nodes

SCOPE = {"kv_strength": 0.8, "kv_scope": "prompts with the person"}
CHECKPOINTS = ["tiny_sd15", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tiny_sd21", "tiny_sdxl"))]


@contextmanager
def replaced(place, name, value):
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def products(sampling) -> tuple:
    """Its result, and how many products of texts with deltas it took."""
    scoped, count = pack("nodes.comfy.scoped_kv"), 0

    def counted(*inputs):
        nonlocal count
        count += 1
        return linear(*inputs)

    linear = scoped.linear
    with replaced(scoped, "linear", counted):
        return sampling(), count


def anew(sampling) -> tuple:
    """The same without anything kept."""
    kept = pack("nodes.comfy.kept_changes")
    with replaced(kept.KeptChanges, "keep", lambda *_: None):
        return products(sampling)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
@torch.inference_mode()
def test_changes_are_computed_once_for_all_steps(checkpoint):
    ann, bob = make_identity(checkpoint), make_identity(checkpoint, seed=9, name="bob")
    model, clip = apply(checkpoint, bob, on=apply(checkpoint, ann, **SCOPE), **SCOPE)
    texts = encode(clip, "<ann> beside <bob>"), encode(clip, "blurry")
    each = 2 * len([key for person in (ann, bob) for key in person.kv if key.endswith("up.weight")])  # two factors
    for steps in (1, 4):
        picture, count = products(lambda steps=steps: sample(model, *texts, steps=steps))
        usual, often = anew(lambda steps=steps: sample(model, *texts, steps=steps))
        assert torch.equal(picture, usual)
        assert count == each > 0 and often == steps * each
    other, count = products(lambda: sample(model, encode(clip, "<bob> alone"), texts[1], steps=3))
    assert count == each and not torch.equal(other, picture)


@in_comfyui
@torch.inference_mode()
def test_texts_that_change_on_the_way_have_changes_of_their_own():
    """The adapter ends in the middle: the text is another from then on."""
    checkpoint = "tiny_sd15"
    model, clip = apply(checkpoint, make_identity(checkpoint), end=0.5, **SCOPE)
    texts = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    picture, count = products(lambda: sample(model, *texts, steps=6))
    usual, often = anew(lambda: sample(model, *texts, steps=6))
    assert torch.equal(picture, usual) and 3 * count == often > 0


@in_comfyui
@torch.inference_mode()
def test_a_text_that_another_node_changes_at_each_step_is_computed_at_each_step():
    checkpoint = "tiny_sd15"
    model, clip = apply(checkpoint, make_identity(checkpoint), **SCOPE)
    model = model.clone()

    def stir(executor, x, timesteps, context=None, *rest, **more):
        return executor(x, timesteps, context * (1 + timesteps[0] / 1000), *rest, **more)

    kind = WrappersMP.DIFFUSION_MODEL
    model.wrappers = {**model.wrappers, kind: {"stir": [stir], **model.wrappers[kind]}}  # before Apply's own
    texts = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    picture, count = products(lambda: sample(model, *texts, steps=3))
    usual, often = anew(lambda: sample(model, *texts, steps=3))
    assert torch.equal(picture, usual) and count == often > 0


@in_comfyui
@torch.inference_mode()
def test_prompts_of_regions_and_of_parts_of_the_sampling_keep_their_own():
    checkpoint = "tiny_sd15"
    model, clip = apply(checkpoint, make_identity(checkpoint), **SCOPE)
    half = torch.zeros(1, 64, 64)
    half[:, :, :32] = 1
    masked, timed = nodes.ConditioningSetMask().append, nodes.ConditioningSetTimestepRange().set_range
    positive = masked(encode(clip, "photo of <ann>"), half, "default", 1.0)[0]
    positive += timed(encode(clip, "<ann> in a long " + "red " * 90 + "hat"), 0.5, 1.0)[0]
    texts = positive, encode(clip, "blurry")
    picture, count = products(lambda: sample(model, *texts, steps=6))
    usual, often = anew(lambda: sample(model, *texts, steps=6))
    assert torch.equal(picture, usual) and 0 < 2 * count <= often


@in_comfyui
@torch.inference_mode()
def test_nothing_is_kept_after_the_sampling():
    """Not even where a sampling breaks off."""
    checkpoint, kept, left = "tiny_sd15", pack("nodes.comfy.kept_changes"), []
    model, clip = apply(checkpoint, make_identity(checkpoint), **SCOPE)
    texts = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    keep = kept.KeptChanges.keep

    def watched(self, text, key, change):
        keep(self, text, key, change)
        left.extend([weakref.ref(change), weakref.ref(text.context)])

    gc.collect()
    gc.disable()
    try:
        with replaced(kept.KeptChanges, "keep", watched):
            sample(model, *texts, steps=2)
        assert len(left) > 2 and all(one() is None for one in left)
    finally:
        gc.enable()


@in_comfyui
@torch.inference_mode()
def test_there_is_an_upper_bound():
    checkpoint, kept = "tiny_sd15", pack("nodes.comfy.kept_changes")
    model, clip = apply(checkpoint, make_identity(checkpoint), **SCOPE)
    texts = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    picture, count = products(lambda: sample(model, *texts, steps=3))
    with replaced(kept, "MOST_BYTES", 2 * 77 * 320 * 4):  # one change of both prompts
        again, more = products(lambda: sample(model, *texts, steps=3))
    assert torch.equal(picture, again)
    assert more == count + 2 * (count - 2)
    assert load(checkpoint)[0].model.diffusion_model.model_channels == 320
