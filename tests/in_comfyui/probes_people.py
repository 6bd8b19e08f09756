"""What the tests look at of identities from faces, and of identities made of identities, inside real ComfyUI."""

from __future__ import annotations

import torch
from probes import apply, encode, error, face, load, make_identity, pack, training_job

import nodes


def instant(checkpoint: str) -> dict:
    """An ID-Enhancer through its nodes: from a file, to an identity, to a text condition, to a training."""
    core, pretrained = pack("idea_core"), pack("idea_core.pretrained")
    node = nodes.NODE_CLASS_MAPPINGS
    person = make_identity(checkpoint)
    encoders = person.base.encoders
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False):
        anchor = {key: torch.randn(2, width, generator=generator) for key, width in encoders.items()}
        model = pretrained.FaceModel(anchor)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
        enhancer = pretrained.PretrainedEnhancer(
            person.base_model, person.prediction, None, 8, 0.4, {k: t.half() for k, t in model.state_dict().items()}
        )
    enhancer.save(pack("nodes.paths").output_folder() / "enhancers" / "people" / f"{checkpoint}.safetensors")
    listed = pack("nodes.paths").enhancer_files()
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
        trained = job.run(*load(checkpoint), None, None)
        blended = node["IDEA_BlendIdentities"].execute(identity, trained, 0.5, "eve").args[0]
        edited, report = node["IDEA_EditIdentity"].execute(trained, "dora", False, False, 2).args
    try:
        core.Identity.load(pack("nodes.paths").enhancer_path(name))
        refused = ""
    except core.errors.IdeaError as problem:
        refused = str(problem)
    return {
        "listed apart": name not in pack("nodes.paths").identity_files(),
        "adapted": error(named[0][0], plain[:, : named[0][0].shape[1]]) > 0 and len(named[0][1]) > 1,
        "near the start": error(trained.tokens[next(iter(encoders))], identity.tokens[next(iter(encoders))]) < 0.05,
        "trained": bool(trained.kv) and not identity.kv,
        "blended": blended.trigger == "<eve>" and bool(blended.kv),
        "edited": edited.name == "dora" and edited.id_embeds is None and not edited.training and "MB" in report,
        "refused": refused,
    }
