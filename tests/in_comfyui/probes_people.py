"""What the tests look at of identities from faces, and of identities made of identities, inside real ComfyUI."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import comfy.model_management
import comfy.utils
import torch
from probes import apply, encode, error, face, load, make_identity, pack, training_job, weights_hash
from safetensors.torch import save_file

import nodes


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


def instant(checkpoint: str) -> dict:
    """An ID-Enhancer through its nodes: from a file, to an identity, to a text condition, to a training."""
    core, node = pack("idea_core"), nodes.NODE_CLASS_MAPPINGS
    enhancer = random_enhancer(checkpoint)
    encoders = core.BASE_MODELS[enhancer.base_model].encoders
    enhancer.save(pack("nodes.comfy.paths").output_folder() / "enhancers" / "people" / f"{checkpoint}.safetensors")
    listed = pack("nodes.comfy.paths").enhancer_files()
    name = next(entry for entry in listed if entry.endswith(f"{checkpoint}.safetensors"))
    loaded = node["IDEA_LoadEnhancer"].execute(name).args[0]
    embeds = pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1))
    with torch.inference_mode():
        identity = node["IDEA_InstantIdentity"].execute(loaded, embeds, "ann").args[0]
        patched = apply(checkpoint, identity)[1]
        plain = encode(load(checkpoint)[1], "a photo of a dog")[0][0]
        named = encode(patched, "a photo of <ann>")
        config = loaded.configure(core.TrainConfig(steps=1, batch_size=1))
        job = training_job("ann", config, enhancer=loaded)
        trained, _ = job.run(*load(checkpoint), None, None)
        blended = node["IDEA_BlendIdentities"].execute(identity, trained, 0.5, "eve").args[0]
        edited, report = node["IDEA_EditIdentity"].execute(trained, "dora", False, False, 2).args
    try:
        core.Identity.load(pack("nodes.comfy.paths").enhancer_path(name))
        refused = ""
    except core.errors.IdeaError as problem:
        refused = str(problem)
    return {
        "listed apart": name not in pack("nodes.comfy.paths").identity_files(),
        "adapted": error(named[0][0], plain[:, : named[0][0].shape[1]]) > 0 and len(named[0][1]) > 1,
        "near the start": error(trained.tokens[next(iter(encoders))], identity.tokens[next(iter(encoders))]) < 0.05,
        "trained": bool(trained.kv) and not identity.kv,
        "blended": blended.trigger == "<eve>" and bool(blended.kv),
        "edited": edited.name == "dora" and edited.id_embeds is None and not edited.training and "MB" in report,
        "refused": refused,
    }


def across(
    checkpoint: str,
    interrupt_at: int | None = None,
    drawn: bool = False,
    go_on: bool = False,
    faces: bool = False,
    steps: int = 4,
) -> dict:
    """ID-Enhancer Train Across People; a random checkpoint draws nobody, so faces are written into its pictures' files.

    Args:
        drawn: whether the pictures are there before, with faces in them.
        go_on: from the Enhancer that an earlier run has saved.
        faces: whether one is found in each picture that is drawn while it learns, in the middle.
    """
    from safetensors.torch import safe_open

    node = nodes.NODE_CLASS_MAPPINGS["IDEA_EnhancerTrainAcross"]
    node.hidden = SimpleNamespace(prompt=None, unique_id=None)
    settings = {
        "name": f"across/{checkpoint}",
        "max_people": 3,
        "images_per_person": 3,
        "resolution": 64,
        "steps": steps,
    }
    settings |= {"text_steps": 0 if go_on else steps // 2, "likeness_steps": 1}
    settings |= {"batch_size": 2, "seed": 0, "sampling_steps": 2, "val_fraction": 0.34, "validate_every": 2}
    settings |= {"names": "ann one\nbob two\neve three", "prompts": "a photo of {}"}
    folder = pack("nodes.comfy.paths").people_folder() / "across" / checkpoint / "people"
    models = nodes.NODE_CLASS_MAPPINGS["IDEA_LoadFaceModel"].execute("testpack", "cpu").args[0]
    if go_on:
        saved = nodes.NODE_CLASS_MAPPINGS["IDEA_LoadEnhancer"].execute(f"saved_{checkpoint}.safetensors").args[0]
        settings["start"] = saved
    before = weights_hash(load(checkpoint)[0], load(checkpoint)[1].patcher)
    hook, seen = comfy.utils.PROGRESS_BAR_HOOK, []

    def on_progress(value, total, preview, **_):
        if total == steps:
            seen.append(value)
            if value == interrupt_at:
                comfy.model_management.interrupt_current_processing()

    if drawn:
        for number, path in enumerate(sorted(folder.glob("*.safetensors"))):
            with safe_open(path, "pt") as file:
                tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
            one = torch.randn(512, generator=torch.Generator().manual_seed(number))
            noise = torch.randn(3, 512, generator=torch.Generator().manual_seed(9)) * 0.2
            tensors["faces"] = torch.nn.functional.normalize(one + noise, dim=1)
            save_file(tensors, path, metadata)
    kind, found = type(models.engine()), pack("idea_core.faces").Face.aligned(settings["resolution"])
    detect = kind.detect
    if faces:
        kind.detect = lambda *_: [found]
    comfy.utils.set_progress_bar_global_hook(on_progress)
    said, enhancer = "", None
    try:
        with torch.inference_mode():
            enhancer = node.execute(*load(checkpoint), models, **settings).args[0]
    except comfy.model_management.InterruptProcessingException:
        said = "interrupted"
    except pack("idea_core").IdeaError as problem:
        said = str(problem)
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
        kind.detect = detect
    digest = None
    if enhancer:
        digest = hashlib.sha256(
            b"".join(enhancer.weights[k].numpy().tobytes() for k in sorted(enhancer.weights))
        ).hexdigest()
        nodes.NODE_CLASS_MAPPINGS["IDEA_SaveEnhancer"].execute(enhancer, f"saved_{checkpoint}")
    return {
        "seen": seen,
        "said": said,
        "pictures": len(list(folder.glob("*.safetensors"))),
        "digest": digest,
        "listed": f"saved_{checkpoint}.safetensors" in pack("nodes.comfy.paths").enhancer_files(),
        "start": enhancer.training["start"] if enhancer else None,
        "validated": enhancer.training["report"]["likeness"] if enhancer else [],
        "unchanged": before == weights_hash(load(checkpoint)[0], load(checkpoint)[1].patcher),
    }


def refined(checkpoint: str, faces: bool = True, interrupt_at: int | None = None) -> dict:
    """Refined ID-EA Embedding; a random checkpoint draws nobody, so a face is found in the middle of each picture.

    Args:
        faces: whether it is found.
        interrupt_at: pictures after whose look somebody cancels.
    """
    node, core = nodes.NODE_CLASS_MAPPINGS["IDEA_RefinedIdentity"], pack("idea_core")
    node.hidden = SimpleNamespace(prompt=None, unique_id=None)
    models = nodes.NODE_CLASS_MAPPINGS["IDEA_LoadFaceModel"].execute("testpack", "cpu").args[0]
    embeds, enhancer = pack("idea_core.faces").IdEmbeds(face()[None], torch.ones(1)), random_enhancer(checkpoint)
    before = weights_hash(load(checkpoint)[0], load(checkpoint)[1].patcher)
    kind, found = type(models.engine()), pack("idea_core.faces").Face.aligned(64)
    hook, detect, seen, said = comfy.utils.PROGRESS_BAR_HOOK, kind.detect, [], ""

    def on_progress(value, total, preview, **_):
        if total == 6 and preview is not None:
            seen.append(value)
            if value == interrupt_at:
                comfy.model_management.interrupt_current_processing()

    kind.detect = lambda *_: [found] if faces else []
    comfy.utils.set_progress_bar_global_hook(on_progress)
    settings = {
        "rounds": 2,
        "num_images": 2,
        "resolution": 64,
        "seed": 0,
        "sampling_steps": 2,
        "sampling_batch_size": 2,
    }
    identity = None
    try:
        with torch.inference_mode():
            identity, images, report = node.execute(*load(checkpoint), models, enhancer, embeds, "ann", **settings).args
    except comfy.model_management.InterruptProcessingException:
        said = "interrupted"
    except core.IdeaError as problem:
        said = str(problem)
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
        kind.detect = detect
    result = {"seen": seen, "said": said}
    result["unchanged"] = before == weights_hash(load(checkpoint)[0], load(checkpoint)[1].patcher)
    if identity is None:
        return result
    with torch.inference_mode():
        named = encode(apply(checkpoint, identity)[1], "a photo of <ann>")
        plain = nodes.NODE_CLASS_MAPPINGS["IDEA_InstantIdentity"].execute(enhancer, embeds, "ann").args[0]
    likeness, encoder = identity.training["report"]["likeness"], next(iter(identity.tokens))
    return result | {
        "images": list(images.shape),
        "report": report,
        "adapted": len(named[0][1]) > 1,
        "likeness": likeness,
        "moved": not torch.equal(identity.tokens[encoder], plain.tokens[encoder]),
        "same face": torch.equal(identity.id_embeds, plain.id_embeds),
    }


def forget_enhancer(checkpoint: str) -> None:
    for path in pack("nodes.comfy.paths").output_folder().glob(f"enhancers/autosave/across/{checkpoint}*"):
        path.unlink()
