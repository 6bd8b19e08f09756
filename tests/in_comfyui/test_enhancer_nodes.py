"""Persons from a face alone, and ID-Enhancers trained across people, inside real ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from inside import INSIDE, in_comfyui
from safetensors.torch import save_file

if INSIDE:
    import comfy.model_management
    from probes import apply, encode, error, face, load, make_identity, pack, progress_of, training_job, weights_hash

    import nodes

STEPS = 4
SD_AND_NOW_AND_THEN_THE_OTHERS = pytest.mark.parametrize(
    "checkpoint", ["tiny_sd15", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tiny_sd21", "tiny_sdxl"))]
)


def random_enhancer(checkpoint: str):
    """One of random weights that fits a checkpoint."""
    person = make_identity(checkpoint)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False):
        anchor = {key: torch.randn(2, width, generator=generator) for key, width in person.base.encoders.items()}
        model = pack("idea_core.enhancers.model").EnhancerModel(anchor, anchor, anchor)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
        weights = {key: tensor.half() for key, tensor in model.state_dict().items()}
    return pack("idea_core.enhancers.pretrained").PretrainedEnhancer(person.base_ref, weights)


def base_hash(checkpoint: str) -> str:
    return weights_hash(load(checkpoint)[0], load(checkpoint)[1].patcher)


def face_models():
    return nodes.NODE_CLASS_MAPPINGS["IDEA_LoadFaceModel"].execute("testpack", "cpu").args[0]


@contextmanager
def one_face_in_every_picture(size: int, found: bool = True) -> Iterator[None]:
    """A random checkpoint draws nobody, so a face is found in the middle of each picture; or none."""
    kind, aligned = type(face_models().engine()), pack("idea_core.faces").Face.aligned(size)
    detect = kind.detect
    kind.detect = lambda *_: [aligned] if found else []
    try:
        yield
    finally:
        kind.detect = detect


@pytest.mark.parametrize("checkpoint", ["tiny_sd15", pytest.param("tiny_sd21", marks=pytest.mark.slow)])
@in_comfyui
def test_a_face_alone_gives_a_person_and_a_start(checkpoint):
    """An ID-Enhancer through its nodes: from a file, to an identity, to a text condition, to a training."""
    core, node = pack("idea_core"), nodes.NODE_CLASS_MAPPINGS
    enhancer = random_enhancer(checkpoint)
    encoder = next(iter(core.BASE_MODELS[enhancer.base_model].encoders))
    enhancer.save(pack("nodes.comfy.paths").output_folder() / "enhancers" / "people" / f"{checkpoint}.safetensors")
    listed = pack("nodes.comfy.paths").listed_files("idea_enhancers")
    name = next(entry for entry in listed if entry.endswith(f"{checkpoint}.safetensors"))
    assert name not in pack("nodes.comfy.paths").identity_files()
    with pytest.raises(core.errors.IdeaError, match="format id-ea-enhancer"):
        core.Identity.load(pack("nodes.comfy.paths").listed_path("idea_enhancers", name))
    loaded = node["IDEA_LoadEnhancer"].execute(name).args[0]
    embeds = pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1))
    with torch.inference_mode():
        identity = node["IDEA_InstantIdentity"].execute(loaded, embeds, "ann").args[0]
        patched = apply(checkpoint, identity)[1]
        plain = encode(load(checkpoint)[1], "a photo of a dog")[0][0]
        named = encode(patched, "a photo of <ann>")
        assert error(named[0][0], plain[:, : named[0][0].shape[1]]) > 0 and len(named[0][1]) > 1

        config = loaded.configure(core.TrainConfig(steps=1, batch_size=1))
        job = training_job("ann", config, enhancer=loaded)
        trained, _ = job.run(*load(checkpoint), None, None)
        assert error(trained.tokens[encoder], identity.tokens[encoder]) < 0.05  # it started there
        assert trained.kv and not identity.kv

        blended = node["IDEA_BlendIdentities"].execute(identity, trained, 0.5, "eve").args[0]
        assert blended.trigger == "<eve>" and blended.kv
        edited, report = node["IDEA_EditIdentity"].execute(trained, "dora", False, False, 2).args
        assert edited.name == "dora" and edited.id_embeds is None and not edited.training
        assert "MB" in report


def refine(checkpoint: str, enhancer, embeds) -> tuple:
    """Identity, images and report of Refined ID-EA Embedding: three rounds of two pictures."""
    node = nodes.NODE_CLASS_MAPPINGS["IDEA_RefinedIdentity"]
    node.hidden = SimpleNamespace(prompt=None, unique_id=None)
    settings = {
        "rounds": 2,
        "num_images": 2,
        "resolution": 64,
        "seed": 0,
        "sampling_steps": 2,
        "sampling_batch_size": 2,
    }
    with torch.inference_mode():
        return node.execute(*load(checkpoint), face_models(), enhancer, embeds, "ann", **settings).args


@SD_AND_NOW_AND_THEN_THE_OTHERS
@in_comfyui
def test_a_person_from_a_face_is_drawn_compared_and_corrected(checkpoint):
    embeds, enhancer = pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1)), random_enhancer(checkpoint)
    before = base_hash(checkpoint)
    with progress_of(6, pictures=True) as seen, one_face_in_every_picture(64):
        identity, images, report = refine(checkpoint, enhancer, embeds)
    assert [value for value, _ in seen] == [2, 4, 6]
    assert base_hash(checkpoint) == before
    assert images.shape == (2, 64, 64, 3)
    likeness = identity.training["report"]["likeness"]
    assert likeness and likeness == sorted(likeness, key=lambda pair: pair[1])
    assert f"likeness: {likeness}" in report
    with torch.inference_mode():
        named = encode(apply(checkpoint, identity)[1], "a photo of <ann>")
        plain = nodes.NODE_CLASS_MAPPINGS["IDEA_InstantIdentity"].execute(enhancer, embeds, "ann").args[0]
    assert len(named[0][1]) > 1  # the adapter acts
    moved = [not torch.equal(identity.tokens[encoder], plain.tokens[encoder]) for encoder in identity.tokens]
    assert moved[0] is (len(likeness) > 1)
    assert torch.equal(identity.id_embeds, plain.id_embeds)


@in_comfyui
def test_a_refinement_may_be_cancelled_and_wants_a_face():
    checkpoint = "tiny_sd15"
    embeds, enhancer = pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1)), random_enhancer(checkpoint)
    before = base_hash(checkpoint)
    with (
        progress_of(6, interrupt_at=4, pictures=True) as seen,
        one_face_in_every_picture(64),
        pytest.raises(comfy.model_management.InterruptProcessingException),
    ):
        refine(checkpoint, enhancer, embeds)
    assert [value for value, _ in seen] == [2, 4]
    assert base_hash(checkpoint) == before

    with (
        progress_of(6, pictures=True) as seen,
        one_face_in_every_picture(64, found=False),
        pytest.raises(pack("idea_core").IdeaError, match="Expected a face in 2 images that the base model draws"),
    ):
        refine(checkpoint, enhancer, embeds)
    assert [value for value, _ in seen] == [2]
    assert base_hash(checkpoint) == before


def across_folder(checkpoint: str):
    """Where the pictures of the people are kept, a file for each person."""
    return pack("nodes.comfy.paths").people_folder() / "across" / checkpoint / "people"


def train_across(checkpoint: str, start=None):
    """The Enhancer that ID-Enhancer Train Across People gives; from `start` no step is of text alone."""
    node = nodes.NODE_CLASS_MAPPINGS["IDEA_EnhancerTrainAcross"]
    node.hidden = SimpleNamespace(prompt=None, unique_id=None)
    settings = {
        "name": f"across/{checkpoint}",
        "max_people": 3,
        "images_per_person": 3,
        "resolution": 64,
        "steps": STEPS,
    }
    settings |= {"text_steps": 0 if start else STEPS // 2, "likeness_steps": 1}
    settings |= {"batch_size": 2, "seed": 0, "sampling_steps": 2, "val_fraction": 0.34, "validate_every": 2}
    settings |= {"names": "ann one\nbob two\neve three", "prompts": "a photo of {}"}
    if start:
        settings["start"] = start
    with torch.inference_mode():
        return node.execute(*load(checkpoint), face_models(), **settings).args[0]


def write_faces(checkpoint: str) -> None:
    """Faces into the files of the drawn pictures, in which a random checkpoint drew nobody."""
    from safetensors.torch import safe_open

    for number, path in enumerate(sorted(across_folder(checkpoint).glob("*.safetensors"))):
        with safe_open(path, "pt") as file:
            tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
        one = torch.randn(512, generator=torch.Generator().manual_seed(number))
        noise = torch.randn(3, 512, generator=torch.Generator().manual_seed(9)) * 0.2
        tensors["faces"] = torch.nn.functional.normalize(one + noise, dim=1)
        save_file(tensors, path, metadata)


def saved_and_loaded(enhancer, checkpoint: str):
    """The same through Save ID-Enhancer and Load ID-Enhancer."""
    node = nodes.NODE_CLASS_MAPPINGS
    node["IDEA_SaveEnhancer"].execute(enhancer, f"saved_{checkpoint}")
    assert f"saved_{checkpoint}.safetensors" in pack("nodes.comfy.paths").listed_files("idea_enhancers")
    return node["IDEA_LoadEnhancer"].execute(f"saved_{checkpoint}.safetensors").args[0]


def forget_enhancer(checkpoint: str) -> None:
    """Remove what the trainings have saved by themselves."""
    paths = [*pack("nodes.comfy.paths").output_folder().glob(f"enhancers/autosave/across/{checkpoint}*")]
    assert paths
    for path in paths:
        path.unlink()


@SD_AND_NOW_AND_THEN_THE_OTHERS
@in_comfyui
def test_an_enhancer_is_trained_across_people_stopped_and_taken_up(checkpoint):
    before = base_hash(checkpoint)
    with pytest.raises(pack("idea_core").IdeaError, match="names that this base model can draw"):
        train_across(checkpoint)
    assert len(list(across_folder(checkpoint).glob("*.safetensors"))) == 3
    write_faces(checkpoint)

    with progress_of(STEPS) as seen:
        whole = train_across(checkpoint)
    assert [value for value, _ in seen] == [1, 2, 3, 4]
    assert [step for step, _ in whole.training["report"]["likeness"]] == [2, 4]
    assert base_hash(checkpoint) == before
    with progress_of(STEPS) as seen:
        train_across(checkpoint)
    assert seen == []  # it is there

    forget_enhancer(checkpoint)
    with (
        progress_of(STEPS, interrupt_at=2),
        pytest.raises(comfy.model_management.InterruptProcessingException),
    ):
        train_across(checkpoint)
    assert base_hash(checkpoint) == before
    with progress_of(STEPS) as seen:
        resumed = train_across(checkpoint)
    assert [value for value, _ in seen] == [3, 4]
    assert resumed.digest() == whole.digest()


@pytest.mark.slow
@in_comfyui
def test_an_enhancer_is_trained_farther_and_by_likeness():
    checkpoint = "tiny_sd15"
    before = base_hash(checkpoint)
    if not across_folder(checkpoint).exists():
        with pytest.raises(pack("idea_core").IdeaError, match="names that this base model can draw"):
            train_across(checkpoint)
    write_faces(checkpoint)
    whole = train_across(checkpoint)
    start = saved_and_loaded(whole, checkpoint)
    farther = train_across(checkpoint, start)
    assert farther.training["start"] == whole.digest() != farther.digest()
    assert base_hash(checkpoint) == before
    with progress_of(STEPS) as seen:
        train_across(checkpoint)
    assert seen == []  # the one to start from was kept

    forget_enhancer(checkpoint)
    with one_face_in_every_picture(64):
        faced = train_across(checkpoint, start)
    assert faced.digest() != farther.digest()  # likeness has gradients
    assert base_hash(checkpoint) == before
