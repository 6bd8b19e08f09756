"""What the tests look at of Apply inside real ComfyUI. Each function returns plain JSON values."""

from __future__ import annotations

import dataclasses
import logging
import unicodedata
from types import SimpleNamespace

import comfy.supported_models
import folder_paths
import torch
from comfy.patcher_extension import WrappersMP
from probes import apply, encode, error, load, make_identity, pack, people_in, plain, sample, sample_plainly, unmarked
from safetensors.torch import save_file

import nodes


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
def adapted_text(checkpoint: str) -> dict:
    """The text of a prompt with the person, against the Adapter computed here, for each 77 tokens of it."""
    identity = make_identity(checkpoint)
    _, clip = apply(checkpoint, identity, strength=0.7)
    text = encode(clip, "a very " * 60 + "photo of <ann>")
    grounding = identity.grounding.float()
    first, last = plain(text)[0][0].split(77, dim=1)
    expected = torch.cat([first, last + 0.7 * identity.build_adapter("cpu").difference(last, grounding)], dim=1)
    return {"error": error(text[0][0], expected), "of": error(expected[:, 77:], last)}


@torch.inference_mode()
def effects(checkpoint: str) -> dict:
    """How much each part of an identity changes the picture, and whether zero strengths change nothing."""
    identity = make_identity(checkpoint)
    text = "photo of <ann> smiling"
    _, clip = apply(checkpoint, identity)
    positive, negative = encode(clip, text), encode(clip, "blurry")
    base = load(checkpoint)[0]

    def picture(**options):
        return sample(apply(checkpoint, identity, **options)[0], positive, negative)

    tokens_only = sample(base, plain(positive), negative)
    zero_model, zero_clip = apply(checkpoint, identity, strength=0.0, kv_strength=0.0)
    return {
        "adapter": error(picture(), tokens_only),
        "as another node would sample it": error(picture(), sample(base, unmarked(positive), negative)),
        "kv": error(picture(strength=0.0, kv_strength=1.0), tokens_only),
        "negative strength": error(picture(strength=-1.0), tokens_only),
        "zero is the input itself": zero_model is base and zero_clip is load(checkpoint)[1],
        "never": error(picture(start=1.0), tokens_only),
        "first half": error(picture(end=0.5), tokens_only),
        "first half against all": error(picture(end=0.5), picture()),
    }


@torch.inference_mode()
def counts(checkpoint: str, steps: int) -> dict:
    """How often the adapter and the UNet run for one picture, and the UNet's batches."""
    adapter, calls = pack("idea_core").GatedAttention, {"adapter": 0, "unet": []}
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
    """start_percent and end_percent against runs switched by hand with ComfyUI's own timestep ranges."""
    identity, ranges = make_identity(checkpoint), nodes.ConditioningSetTimestepRange()
    _, clip = apply(checkpoint, identity)
    positive, negative = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    adapted, bare = unmarked(positive), plain(positive)

    def by_hand(first, second):
        halves = ranges.set_range(first, 0.0, 0.5)[0] + ranges.set_range(second, 0.5001, 1.0)[0]
        return sample(load(checkpoint)[0], halves, negative, steps=6)

    def scheduled(start, end):
        return sample(apply(checkpoint, identity, start=start, end=end)[0], positive, negative, steps=6)

    return {
        "end": error(scheduled(0.0, 0.5), by_hand(adapted, bare)),
        "start": error(scheduled(0.5001, 1.0), by_hand(bare, adapted)),
        "halves differ": error(by_hand(adapted, bare), by_hand(bare, adapted)),
    }


@torch.inference_mode()
def composed(checkpoint: str) -> dict:
    """Pictures through stock nodes, against a MODEL that knows nobody and is given the same text."""
    identity = make_identity(checkpoint)
    model, clip = apply(checkpoint, identity)
    base = load(checkpoint)[0]
    negative = encode(clip, "blurry")

    person, forest = encode(clip, "photo of <ann>"), encode(clip, "in a forest")
    cases = {
        "concat": nodes.ConditioningConcat().concat(person, forest)[0],
        "concat behind": nodes.ConditioningConcat().concat(forest, person)[0],
        "average": nodes.ConditioningAverage().addWeighted(person, forest, 0.4)[0],
        "combine": nodes.ConditioningCombine().combine(person, forest)[0],
        "area": nodes.ConditioningSetArea().append(person, 32, 32, 0, 0, 1.0)[0] + forest,
        "long": encode(clip, "a very " * 60 + "photo of <ann>"),
    }
    errors = {
        name: error(sample(model, case, negative), sample(base, unmarked(case), negative))
        for name, case in cases.items()
    }
    half = apply(checkpoint, identity, strength=0.5)[0]
    combined = error(sample(half, cases["concat"], negative), sample(model, cases["concat"], negative))
    zero = nodes.ConditioningZeroOut().zero_out(person)[0]
    bare_zero = [[context, {"pooled_output": entries["pooled_output"]}] for context, entries in zero]
    errors["zero out"] = error(sample(model, forest, zero), sample(base, forest, bare_zero))
    errors["zero out at another strength"] = error(sample(half, forest, zero), sample(base, forest, bare_zero))
    foreign = encode(load(checkpoint)[1], "blurry")
    errors["negative of the unpatched clip"] = error(
        sample(model, person, foreign), sample(base, unmarked(person), foreign)
    )
    mixed = cases["average"]
    said = notices(lambda: errors.update(average=error(sample(half, mixed, negative), sample(model, mixed, negative))))
    return {"errors": errors, "another strength after concat": combined, "said": said}


@torch.inference_mode()
def three_people(checkpoint: str) -> dict:
    """Chained Apply nodes: each acts on the prompts that hold its name."""
    ann = make_identity(checkpoint)
    bob, eve = (make_identity(checkpoint, seed=seed, name=name) for seed, name in ((9, "bob"), (10, "eve")))
    model, clip = apply(checkpoint, eve, on=apply(checkpoint, bob, on=apply(checkpoint, ann)))
    backwards = apply(checkpoint, ann, on=apply(checkpoint, bob, on=apply(checkpoint, eve)))[1]
    both, all_of_them = (encode(clip, prompt) for prompt in ("photo of <ann> and <bob>", "<eve> with <bob>, <ann>"))
    alone = encode(clip, "photo of <ann>")
    single = encode(apply(checkpoint, ann)[1], "photo of <ann>")
    negative = encode(clip, "blurry")
    return {
        "both": people_in(both),
        "all": people_in(all_of_them),
        "finite": bool(sample(model, all_of_them, negative).isfinite().all()),
        "alone": people_in(alone),
        "in any order": error(encode(backwards, "<eve> with <bob>, <ann>")[0][0], all_of_them[0][0]),
        "same as single": torch.equal(alone[0][0], single[0][0]),
        "picture": error(sample(model, alone, negative), sample(apply(checkpoint, ann)[0], single, negative)),
    }


def unet_rows(model, positive, negative) -> torch.Tensor:
    """What the UNet gives in one sampling step with guidance: a row for each prompt."""
    model, seen = model.clone(), []

    def record(executor, *inputs, **more):
        seen.append(executor(*inputs, **more))
        return seen[-1]

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "rows", record)
    sample(model, positive, negative, steps=1)
    return seen[0].clone()


@torch.inference_mode()
def scoped_kv(checkpoint: str) -> dict:
    """K/V deltas on the whole model, on prompts with the person, and on none; adapters left out where it says so."""
    ann = make_identity(checkpoint)
    before = sample_plainly(checkpoint)
    scope = {"kv_strength": 0.8, "kv_scope": "prompts with the person"}
    scoped, clip = apply(checkpoint, ann, **scope)
    whole, none = apply(checkpoint, ann, kv_strength=0.8)[0], apply(checkpoint, ann)[0]
    positive, negative = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    rows = {
        name: unet_rows(model, positive, negative)
        for name, model in {"scoped": scoped, "whole": whole, "none": none, "again": scoped.clone().clone()}.items()
    }
    bare = dataclasses.replace(ann, grounding=None, adapter={})
    bare_scoped, bare_clip = apply(checkpoint, bare, strength=1.0, **scope)
    bare_positive = encode(bare_clip, "photo of <ann>")
    bare_rows = [unet_rows(model, bare_positive, negative) for model in (bare_scoped, load(checkpoint)[0])]
    differences = [error(rows["scoped"][i], rows["whole"][i]) for i in range(2)]
    of_none = [error(rows["scoped"][i], rows["none"][i]) for i in range(2)]
    person = differences.index(min(differences))
    return {
        "as on the whole model": differences[person],
        "as without": of_none[1 - person],
        "acts": of_none[person],
        "does not act on all": differences[1 - person],
        "clone": error(rows["again"], rows["scoped"]),
        "without adapter": sorted(error(a, b) > 1e-4 for a, b in zip(*bare_rows)),
        "leaves nothing": before == sample_plainly(checkpoint),
    }


@torch.inference_mode()
def regions(checkpoint: str) -> dict:
    """Two people in the halves of a picture: what one of them changes outside of the own half, in one step."""
    ann, bob = make_identity(checkpoint), make_identity(checkpoint, seed=9, name="bob")
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1

    def picture(people, kv_scope):
        on = load(checkpoint)[:2]
        for person in people:
            on = apply(checkpoint, person, kv_strength=1.0, kv_scope=kv_scope, on=on)
        model, clip = on
        masked = nodes.ConditioningSetMask().append
        positive = masked(encode(clip, "photo of <ann>"), left, "default", 1.0)[0]
        positive = positive + masked(encode(clip, "photo of <bob>"), 1 - left, "default", 1.0)[0]
        return sample(model, positive, encode(clip, "blurry"), steps=1)

    both, alone = (picture(people, "prompts with the person") for people in ([ann, bob], [bob]))
    whole_both, whole_alone = (picture(people, "whole model") for people in ([ann, bob], [bob]))
    half = both.shape[-1] // 2
    return {
        "outside": error(both[..., half:], alone[..., half:]),
        "inside": error(both[..., :half], alone[..., :half]),
        "outside, on the whole model": error(whole_both[..., half:], whole_alone[..., half:]),
    }


@torch.inference_mode()
def all_prompts(checkpoint: str) -> dict:
    """Conditionings of prompts without the name, where the adapter acts on all prompts."""
    model, clip = apply(checkpoint, make_identity(checkpoint), branch="all prompts")
    alone = encode(load(checkpoint)[1], "a dog")
    everywhere = encode(clip, "a dog")
    negative = encode(load(checkpoint)[1], "blurry")
    return {
        "text": error(alone[0][0], plain(everywhere)[0][0]),
        "difference": error(everywhere[0][0], alone[0][0]),
        "picture": error(sample(model, everywhere, negative), sample(load(checkpoint)[0], alone, negative)),
    }


def shared_ids() -> dict[str, list[str]]:
    """Ids that a node has for both an input and an output, which ComfyUI 0.3.64 refuses together with the pack."""
    ours = {key: node for key, node in nodes.NODE_CLASS_MAPPINGS.items() if key.startswith("IDEA_")}
    schemas = {key: node.define_schema() for key, node in ours.items()}
    shared = {
        key: sorted({part.id for part in schema.inputs or []} & {part.id for part in schema.outputs or []})
        for key, schema in schemas.items()
    }
    return {key: ids for key, ids in shared.items() if ids}


def notices(call) -> list[str]:
    """What the pack logs meanwhile."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        call()
    finally:
        logging.getLogger().removeHandler(handler)
    return [line for line in said if line.startswith("ID-EA")]


def hints(checkpoint: str, texts: list[str]) -> list[str]:
    """What is logged when prompts are read by a CLIP that knows two people."""
    on = apply(checkpoint, make_identity(checkpoint))
    _, clip = apply(checkpoint, make_identity(checkpoint, seed=9, name="bob"), on=on)
    return notices(lambda: [clip.tokenize(text) for text in texts])


def weights_in(prompts: list[str]) -> list:
    """ComfyUI's own reading of prompts: texts and their weights."""
    return [pack("nodes.comfy.names")._segments(prompt) for prompt in prompts]


@torch.inference_mode()
def spellings(checkpoint: str, name: str) -> dict:
    """A person's name composed and decomposed, in prompts and in files."""
    composed, apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    identity = make_identity(checkpoint, name=apart)
    _, clip = apply(checkpoint, identity)
    first, *others = [
        encode(clip, f"photo of {mention}")[0][0]
        for spelled in (composed, apart, composed.upper())
        for mention in (f"<{spelled}>", f"embedding:{spelled}")
    ]
    paths, nodes_of = pack("nodes.comfy.paths"), pack("nodes.identities")
    nodes_of.SaveIdentity.execute(identity, f"of {apart}/{apart}")
    saved = paths.saved_path(f"of {apart}/{composed}")
    result = {
        "trigger": identity.trigger == f"<{composed}>",
        "prompts": all(torch.equal(first, other) for other in others),
        "plain text": torch.equal(first, encode(clip, f"photo of {composed}")[0][0]),
        "saved": saved.name == f"{composed}.safetensors" and saved.is_file(),
    }
    saved.rename(saved.with_name(f"{apart}.safetensors"))  # as a Mac writes it
    folder_paths.filename_list_cache.clear()
    for spelled in (composed, apart):
        file = f"of {spelled}/{spelled}.safetensors"
        (read,) = nodes_of.LoadIdentity.execute(file).args
        result |= {f"{len(spelled)} found": read.name == composed and nodes_of.LoadIdentity.validate_inputs(file)}
    listed = [file for file in paths.identity_files() if file.startswith(f"of {composed}")]
    result["listed once"] = listed == [f"of {composed}/{composed}.safetensors"]
    nodes_of.SaveIdentity.execute(identity, f"of {apart}/{composed}")
    result["one file"] = len(list(saved.parent.iterdir())) == 1
    result["unknown"] = nodes_of.LoadIdentity.validate_inputs("nobody.safetensors")
    return result


@torch.inference_mode()
def clip_layers(checkpoint: str, own: int, other: int) -> dict:
    """What is said of CLIP layers set before Apply and behind it, and which one a training on them notes."""
    model, clip, vae = load(checkpoint)
    ann, said, noted = make_identity(checkpoint), {}, {}

    def at(clip, layer):
        return nodes.CLIPSetLastLayer().set_last_layer(clip, layer)[0]

    for name, layer in (("own", own), ("other", other)):
        before = apply(checkpoint, ann, on=(model, at(clip, layer)))[1]
        behind = at(apply(checkpoint, ann)[1], layer)
        said[name] = [notices(lambda one=one: encode(one, "photo of <ann>")) for one in (before, behind)]
        noted[name] = pack("nodes.comfy.backbone").ComfyBackbone(model, at(clip, layer), vae).clip_layer
    return {"said": said, "noted": noted}


@torch.inference_mode()
def one_person_twice(checkpoint: str) -> dict:
    """Apply nodes for one person in a row: their strengths add up."""
    ann = make_identity(checkpoint)
    model, clip = apply(checkpoint, ann, strength=0.75, on=apply(checkpoint, ann, strength=0.25))
    whole, whole_clip = apply(checkpoint, ann)
    negative = encode(clip, "blurry")
    twice = sample(model, encode(clip, "photo of <ann>"), negative)
    once = sample(whole, encode(whole_clip, "photo of <ann>"), negative)
    weak = sample(apply(checkpoint, ann, strength=0.25)[0], encode(whole_clip, "photo of <ann>"), negative)
    return {"error": error(twice, once), "of": error(weak, once)}


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
    tokenizers = [getattr(embedder.tokenizer, key) for key in identity.tokens]
    before = [tokenizer.embedding_directory for tokenizer in tokenizers]
    for tokenizer in tokenizers:
        tokenizer.embedding_directory = [folder]
    try:
        stock = encode(embedder, f"photo of embedding:{path.stem} smiling")
    finally:
        for tokenizer, directory in zip(tokenizers, before):
            tokenizer.embedding_directory = directory
    patched_model, patched_clip = apply(checkpoint, identity, strength=0.0, kv_strength=0.7)
    ours = encode(patched_clip, "photo of <ann> smiling")
    lora_model, _ = nodes.LoraLoader().load_lora(model, clip, path.name, 0.7, 0.0)
    negative = encode(clip, "blurry")
    return {
        "tokens": torch.equal(stock[0][0], ours[0][0])
        and torch.equal(*(c[0][1]["pooled_output"] for c in (stock, ours))),
        "kv": error(sample(patched_model, ours, negative), sample(lora_model, ours, negative)),
    }


@torch.inference_mode()
def unet_call(checkpoint: str, prompt: str, target: str, strength: float, kv_strength: float) -> None:
    """One real sampling step with everything applied; what the UNet was given and gave, for a check elsewhere."""
    identity = make_identity(checkpoint)
    model, clip = apply(checkpoint, identity, strength, kv_strength)
    seen = {}

    def record(executor, x, timesteps, context=None, *rest, **more):
        output = executor(x, timesteps, context, *rest, **more)
        seen.update(x=x, timesteps=timesteps, context=context, output=output)
        return output

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record)
    sample(model, encode(clip, prompt), [], steps=1, cfg=1.0)
    save_file({key: tensor.float().clone().contiguous() for key, tensor in seen.items()}, f"{target}/call.safetensors")
    identity.save(f"{target}/identity.safetensors")


@torch.inference_mode()
def clones(checkpoint: str) -> dict:
    """Clones, LoRA loaders and CLIP Set Last Layer after Apply; the base afterwards."""
    identity = make_identity(checkpoint)
    before = sample_plainly(checkpoint)
    model, clip = apply(checkpoint, identity, kv_strength=1.0)
    reference = encode(clip, "photo of <ann>")
    cloned = encode(clip.clone().clone(), "photo of <ann>")
    other_layer = encode(nodes.CLIPSetLastLayer().set_last_layer(clip, -3)[0], "photo of <ann>")
    negative = encode(clip, "blurry")
    return {
        "clone": torch.equal(reference[0][0], cloned[0][0]),
        "layer": error(reference[0][0], other_layer[0][0]),
        "layer carries": people_in(other_layer) == 1,
        "model clone": error(sample(model.clone().clone(), reference, negative), sample(model, reference, negative)),
        "base unchanged": sample_plainly(checkpoint) == before,
    }


def refusal(checkpoint: str, case: str) -> str:
    """The error of a MODEL, CLIP and identity that do not fit."""
    model, clip, _ = load(checkpoint)
    _, other_clip, _ = load("tiny_sd15")
    try:
        if case == "clip of another family":
            apply(checkpoint, make_identity(checkpoint), on=(model, other_clip))
        elif case == "identity of another family":
            apply(checkpoint, make_identity("tiny_sd15"))
        elif case == "kv of another checkpoint":
            identity = make_identity(checkpoint)
            kv = {key.replace("input_blocks.1", "input_blocks.7"): tensor for key, tensor in identity.kv.items()}
            apply(checkpoint, dataclasses.replace(identity, kv=kv), kv_strength=1.0)
        elif case == "refiner":
            config = comfy.supported_models.SDXLRefiner({"context_dim": 1280, "adm_in_channels": 2560})
            refiner = SimpleNamespace(diffusion_model=model.model.diffusion_model, model_config=config)
            pack("nodes.comfy.models").require_pair(SimpleNamespace(model=refiner), clip)
        elif case == "no unet":
            pack("nodes.comfy.models").require_pair(SimpleNamespace(model=SimpleNamespace()), clip)
        elif case == "no clip":
            apply(checkpoint, make_identity(checkpoint), on=(model, None))
        elif case == "two of one name":
            apply(
                checkpoint,
                make_identity(checkpoint, seed=9, name="Ann"),
                on=apply(checkpoint, make_identity(checkpoint)),
            )
        elif case == "no vae":
            pack("nodes.comfy.models").require_vae(None)
        elif case == "not an identity":
            apply(checkpoint, {"face": "of another pack"})
    except pack("idea_core").IdeaError as refused:
        return str(refused)
    return "accepted"
