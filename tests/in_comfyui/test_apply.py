"""Apply ID-Adapter inside real ComfyUI."""

from __future__ import annotations

import dataclasses
import unicodedata
from types import SimpleNamespace

import pytest
import torch
from inside import INSIDE, in_comfyui

if INSIDE:
    import comfy.supported_models
    import folder_paths
    from comfy.patcher_extension import WrappersMP
    from probes import (
        apply,
        encode,
        error,
        load,
        make_identity,
        notices,
        pack,
        people_in,
        plain,
        sample,
        sample_plainly,
        unmarked,
    )

    import nodes

CHECKPOINTS = ["tiny_sd15", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tiny_sd21", "tiny_sdxl"))]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
@torch.inference_mode()
def test_prompts_without_the_name_are_bit_identical(checkpoint):
    model, clip, _ = load(checkpoint)
    patched_model, patched_clip = apply(checkpoint, make_identity(checkpoint))
    positive, negative = encode(clip, "a photo of a (dog:1.2)"), encode(clip, "blurry " * 100)
    patched_positive = encode(patched_clip, "a photo of a (dog:1.2)")
    patched_negative = encode(patched_clip, "blurry " * 100)
    assert torch.equal(positive[0][0], patched_positive[0][0])
    assert torch.equal(negative[0][0], patched_negative[0][0])
    assert set(patched_positive[0][1]) <= set(positive[0][1])
    assert torch.equal(sample(model, positive, negative), sample(patched_model, patched_positive, patched_negative))


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
@torch.inference_mode()
def test_the_text_is_what_the_adapter_makes_of_it(checkpoint):
    """Against the Adapter computed here, for each 77 tokens of the prompt."""
    identity = make_identity(checkpoint)
    _, clip = apply(checkpoint, identity, strength=0.7)
    text = encode(clip, "a very " * 60 + "photo of <ann>")
    grounding = identity.grounding.float()
    first, last = plain(text)[0][0].split(77, dim=1)
    expected = torch.cat([first, last + 0.7 * identity.build_adapter("cpu").difference(last, grounding)], dim=1)
    assert error(text[0][0], expected) <= 1e-5
    assert error(expected[:, 77:], last) > 1e-3


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
@torch.inference_mode()
def test_each_part_has_its_effect_and_its_switch(checkpoint):
    identity = make_identity(checkpoint)
    text = "photo of <ann> smiling"
    _, clip = apply(checkpoint, identity)
    positive, negative = encode(clip, text), encode(clip, "blurry")
    base = load(checkpoint)[0]

    def picture(**options):
        return sample(apply(checkpoint, identity, **options)[0], positive, negative)

    tokens_only = sample(base, plain(positive), negative)
    zero_model, zero_clip = apply(checkpoint, identity, strength=0.0, kv_strength=0.0)
    assert zero_model is base
    assert zero_clip is load(checkpoint)[1]
    assert error(picture(), tokens_only) > 1e-3
    assert error(picture(strength=0.0, kv_strength=1.0), tokens_only) > 1e-3
    assert error(picture(strength=-1.0), tokens_only) > 1e-3
    assert error(picture(end=0.5), tokens_only) > 1e-3
    assert error(picture(end=0.5), picture()) > 1e-4
    assert error(picture(start=1.0), tokens_only) == 0  # never
    assert error(picture(), sample(base, unmarked(positive), negative)) == 0  # as another node would sample it


@in_comfyui
@torch.inference_mode()
def test_the_adapter_runs_once_per_prompt():
    checkpoint, steps = "tiny_sd15", 4
    adapter, calls = pack("idea_core").GatedAttention, {"adapter": 0, "unet": []}
    attended = adapter.attended

    def count(self, *inputs):
        calls["adapter"] += 1
        return attended(self, *inputs)

    def record(executor, x, *rest, **more):
        calls["unet"].append(x.shape[0])
        return executor(x, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "attended", count)
        model, clip = apply(checkpoint, make_identity(checkpoint))
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record)
        positive, negative = encode(clip, "photo of <ann>"), encode(clip, "blurry")
        sample(model, positive, negative, steps)
        sample(model, positive, negative, steps)
    assert calls["adapter"] == 1
    assert calls["unet"] == [2] * 8  # cond and uncond in one batch, in each of the steps


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
@torch.inference_mode()
def test_the_schedule_equals_one_switched_by_hand(checkpoint):
    """With ComfyUI's own timestep ranges."""
    identity, ranges = make_identity(checkpoint), nodes.ConditioningSetTimestepRange()
    _, clip = apply(checkpoint, identity)
    positive, negative = encode(clip, "photo of <ann>"), encode(clip, "blurry")
    adapted, bare = unmarked(positive), plain(positive)

    def by_hand(first, second):
        halves = ranges.set_range(first, 0.0, 0.5)[0] + ranges.set_range(second, 0.5001, 1.0)[0]
        return sample(load(checkpoint)[0], halves, negative, steps=6)

    def scheduled(start, end):
        return sample(apply(checkpoint, identity, start=start, end=end)[0], positive, negative, steps=6)

    assert error(scheduled(0.0, 0.5), by_hand(adapted, bare)) == 0
    assert error(scheduled(0.5001, 1.0), by_hand(bare, adapted)) == 0
    assert error(by_hand(adapted, bare), by_hand(bare, adapted)) > 1e-3


@in_comfyui
@torch.inference_mode()
def test_stock_conditioning_nodes_keep_working():
    """Pictures through them, against a MODEL that knows nobody and is given the same text."""
    checkpoint = "tiny_sd15"
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
    for name, case in cases.items():
        if name != "average":  # below
            assert error(sample(model, case, negative), sample(base, unmarked(case), negative)) == 0, name
    half = apply(checkpoint, identity, strength=0.5)[0]
    assert error(sample(half, cases["concat"], negative), sample(model, cases["concat"], negative)) > 1e-3
    zero = nodes.ConditioningZeroOut().zero_out(person)[0]
    bare_zero = [[context, {"pooled_output": entries["pooled_output"]}] for context, entries in zero]
    assert error(sample(model, forest, zero), sample(base, forest, bare_zero)) == 0
    assert error(sample(half, forest, zero), sample(base, forest, bare_zero)) == 0
    foreign = encode(load(checkpoint)[1], "blurry")  # of the unpatched CLIP
    assert error(sample(model, person, foreign), sample(base, unmarked(person), foreign)) == 0
    mixed, pictures = cases["average"], []
    said = notices(lambda: pictures.append(sample(half, mixed, negative)))
    assert error(*pictures, sample(model, mixed, negative)) == 0
    assert error(*pictures, sample(base, unmarked(mixed), negative)) == 0
    assert len(said) == 1
    assert "Another node has mixed the prompt of <ann>." in said[0]


@in_comfyui
@torch.inference_mode()
def test_several_people_each_act_on_their_own_prompts():
    """Through chained Apply nodes."""
    checkpoint = "tiny_sd15"
    ann = make_identity(checkpoint)
    bob, eve = (make_identity(checkpoint, seed=seed, name=name) for seed, name in ((9, "bob"), (10, "eve")))
    model, clip = apply(checkpoint, eve, on=apply(checkpoint, bob, on=apply(checkpoint, ann)))
    backwards = apply(checkpoint, ann, on=apply(checkpoint, bob, on=apply(checkpoint, eve)))[1]
    both, all_of_them = (encode(clip, prompt) for prompt in ("photo of <ann> and <bob>", "<eve> with <bob>, <ann>"))
    alone = encode(clip, "photo of <ann>")
    single = encode(apply(checkpoint, ann)[1], "photo of <ann>")
    negative = encode(clip, "blurry")
    assert [people_in(text) for text in (both, all_of_them, alone)] == [2, 3, 1]
    assert sample(model, all_of_them, negative).isfinite().all()
    assert error(encode(backwards, "<eve> with <bob>, <ann>")[0][0], all_of_them[0][0]) == 0
    assert torch.equal(alone[0][0], single[0][0])
    assert error(sample(model, alone, negative), sample(apply(checkpoint, ann)[0], single, negative)) == 0


def unet_rows(model, positive, negative) -> torch.Tensor:
    """What the UNet gives in one sampling step with guidance: a row for each prompt."""
    model, seen = model.clone(), []

    def record(executor, *inputs, **more):
        seen.append(executor(*inputs, **more))
        return seen[-1]

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "rows", record)
    sample(model, positive, negative, steps=1)
    return seen[0].clone()


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
@torch.inference_mode()
def test_keys_and_values_may_change_on_the_persons_prompts_alone(checkpoint):
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
    of_whole = [error(rows["scoped"][i], rows["whole"][i]) for i in range(2)]
    of_none = [error(rows["scoped"][i], rows["none"][i]) for i in range(2)]
    person = of_whole.index(min(of_whole))
    assert of_whole[person] <= 1e-4
    assert of_none[1 - person] == 0
    assert of_none[person] > 1e-3
    assert of_whole[1 - person] > 1e-3
    assert error(rows["again"], rows["scoped"]) == 0

    bare = dataclasses.replace(ann, grounding=None, adapter={})
    bare_scoped, bare_clip = apply(checkpoint, bare, strength=1.0, **scope)
    bare_positive = encode(bare_clip, "photo of <ann>")
    bare_rows = [unet_rows(model, bare_positive, negative) for model in (bare_scoped, load(checkpoint)[0])]
    assert sorted(error(a, b) > 1e-4 for a, b in zip(*bare_rows)) == [False, True]
    assert before == sample_plainly(checkpoint)


@in_comfyui
@torch.inference_mode()
def test_outside_of_the_own_region_a_person_changes_nothing():
    """Two people in the halves of a picture, in one step."""
    checkpoint = "tiny_sd15"
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
    assert error(both[..., half:], alone[..., half:]) == 0
    assert error(both[..., :half], alone[..., :half]) > 1e-3
    assert error(whole_both[..., half:], whole_alone[..., half:]) > 1e-3


@in_comfyui
@torch.inference_mode()
def test_the_adapter_may_act_on_all_prompts():
    checkpoint = "tiny_sd15"
    model, clip = apply(checkpoint, make_identity(checkpoint), branch="all prompts")
    alone = encode(load(checkpoint)[1], "a dog")
    everywhere = encode(clip, "a dog")
    negative = encode(load(checkpoint)[1], "blurry")
    assert torch.equal(alone[0][0], plain(everywhere)[0][0])
    assert error(everywhere[0][0], alone[0][0]) > 1e-3
    assert error(sample(model, everywhere, negative), sample(load(checkpoint)[0], alone, negative)) > 1e-3


@in_comfyui
def test_no_node_calls_an_input_and_an_output_the_same():
    """ComfyUI 0.3.64 refuses such a node together with the whole pack."""
    ours = {key: node for key, node in nodes.NODE_CLASS_MAPPINGS.items() if key.startswith("IDEA_")}
    assert len(ours) >= 10
    for key, node in ours.items():
        schema = node.define_schema()
        assert not {part.id for part in schema.inputs or []} & {part.id for part in schema.outputs or []}, key


@in_comfyui
def test_an_unknown_name_is_said_once_with_those_who_are_known():
    checkpoint = "tiny_sd15"
    on = apply(checkpoint, make_identity(checkpoint))
    _, clip = apply(checkpoint, make_identity(checkpoint, seed=9, name="bob"), on=on)
    texts = ["<ann> and <Bob>", "<eve> with <ann>", "again <eve>", "<lora:x:1> and < y >", "<bob:1.2>"]
    assert notices(lambda: [clip.tokenize(text) for text in texts]) == [
        "ID-EA: No person called <eve> is applied: it stays plain text. Applied: <ann>, <bob>.",
        "ID-EA: <bob:1.2> stays plain text. For the person write (<bob>:1.2).",
    ]


@pytest.mark.parametrize("name", ["José", "आरती", "Việt"])
@in_comfyui
@torch.inference_mode()
def test_a_name_is_one_name_in_every_normal_form(name):
    """Composed and decomposed, in prompts and in files."""
    checkpoint = "tiny_sd15"
    composed, apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    identity = make_identity(checkpoint, name=apart)
    assert identity.trigger == f"<{composed}>"
    _, clip = apply(checkpoint, identity)
    first, *others = [
        encode(clip, f"photo of {mention}")[0][0]
        for spelled in (composed, apart, composed.upper())
        for mention in (f"<{spelled}>", f"embedding:{spelled}")
    ]
    assert len(others) == 5
    assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(first, encode(clip, f"photo of {composed}")[0][0])
    paths, nodes_of = pack("nodes.comfy.paths"), pack("nodes.identities")
    nodes_of.SaveIdentity.execute(identity, f"of {apart}/{apart}")
    saved = paths.saved_path(f"of {apart}/{composed}")
    assert saved.name == f"{composed}.safetensors"
    assert saved.is_file()
    saved.rename(saved.with_name(f"{apart}.safetensors"))  # as a Mac writes it
    folder_paths.filename_list_cache.clear()
    for spelled in (composed, apart):
        file = f"of {spelled}/{spelled}.safetensors"
        (read,) = nodes_of.LoadIdentity.execute(file).args
        assert read.name == composed
        assert nodes_of.LoadIdentity.validate_inputs(file) is True
    listed = [file for file in paths.identity_files() if file.startswith(f"of {composed}")]
    assert listed == [f"of {composed}/{composed}.safetensors"]
    nodes_of.SaveIdentity.execute(identity, f"of {apart}/{composed}")
    assert len(list(saved.parent.iterdir())) == 1
    assert "Value not in list" in nodes_of.LoadIdentity.validate_inputs("nobody.safetensors")


@pytest.mark.parametrize(
    ("checkpoint", "own"), [("tiny_sd15", -1), pytest.param("tiny_sd21", -2, marks=pytest.mark.slow)]
)
@in_comfyui
@torch.inference_mode()
def test_a_clip_layer_counts_by_what_it_does_where_the_prompt_is_encoded(checkpoint, own):
    model, clip, vae = load(checkpoint)
    ann = make_identity(checkpoint)

    def at(clip, layer):
        return nodes.CLIPSetLastLayer().set_last_layer(clip, layer)[0]

    def said_at(layer):
        """Where the layer is set before Apply, and behind it."""
        before = apply(checkpoint, ann, on=(model, at(clip, layer)))[1]
        behind = at(apply(checkpoint, ann)[1], layer)
        return [notices(lambda one=one: encode(one, "photo of <ann>")) for one in (before, behind)]

    def noted_at(layer):
        return pack("nodes.comfy.backbone").ComfyBackbone(model, at(clip, layer), vae).clip_layer

    assert said_at(own) == [[], []]
    assert noted_at(own) is None
    line = f"ID-EA: <ann> was trained on CLIP layer {own}, and this CLIP gives layer {own - 2}."
    for said in said_at(own - 2):
        assert len(said) == 1
        assert said[0].startswith(line)
    assert noted_at(own - 2) == own - 2


@in_comfyui
@torch.inference_mode()
def test_one_person_twice_adds_up():
    """The strengths of Apply nodes in a row."""
    checkpoint = "tiny_sd15"
    ann = make_identity(checkpoint)
    model, clip = apply(checkpoint, ann, strength=0.75, on=apply(checkpoint, ann, strength=0.25))
    whole, whole_clip = apply(checkpoint, ann)
    negative = encode(clip, "blurry")
    twice = sample(model, encode(clip, "photo of <ann>"), negative)
    once = sample(whole, encode(whole_clip, "photo of <ann>"), negative)
    weak = sample(apply(checkpoint, ann, strength=0.25)[0], encode(whole_clip, "photo of <ann>"), negative)
    assert error(twice, once) < 1e-3 * error(weak, once)


@in_comfyui
@torch.inference_mode()
def test_clones_and_other_nodes_keep_what_was_applied():
    checkpoint = "tiny_sd15"
    identity = make_identity(checkpoint)
    before = sample_plainly(checkpoint)
    model, clip = apply(checkpoint, identity, kv_strength=1.0)
    reference = encode(clip, "photo of <ann>")
    cloned = encode(clip.clone().clone(), "photo of <ann>")
    assert torch.equal(reference[0][0], cloned[0][0])
    other_layer = encode(nodes.CLIPSetLastLayer().set_last_layer(clip, -3)[0], "photo of <ann>")
    assert error(reference[0][0], other_layer[0][0]) > 0
    assert people_in(other_layer) == 1
    negative = encode(clip, "blurry")
    assert error(sample(model.clone().clone(), reference, negative), sample(model, reference, negative)) == 0
    assert sample_plainly(checkpoint) == before


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@in_comfyui
@torch.inference_mode()
def test_stock_embedding_and_lora_loader_read_the_same_file(checkpoint, tmp_path):
    identity = make_identity(checkpoint)
    path = identity.save(f"{tmp_path}/{checkpoint}_person.safetensors")
    model, clip, _ = load(checkpoint)
    folder_paths.add_model_folder_path("loras", tmp_path)
    embedder = clip.clone()
    tokenizers = [getattr(embedder.tokenizer, key) for key in identity.tokens]
    with pytest.MonkeyPatch.context() as patch:
        for tokenizer in tokenizers:
            patch.setattr(tokenizer, "embedding_directory", [tmp_path])
        stock = encode(embedder, f"photo of embedding:{path.stem} smiling")
    patched_model, patched_clip = apply(checkpoint, identity, strength=0.0, kv_strength=0.7)
    ours = encode(patched_clip, "photo of <ann> smiling")
    assert torch.equal(stock[0][0], ours[0][0])
    assert torch.equal(*(c[0][1]["pooled_output"] for c in (stock, ours)))
    lora_model, _ = nodes.LoraLoader().load_lora(model, clip, path.name, 0.7, 0.0)
    negative = encode(clip, "blurry")
    assert error(sample(patched_model, ours, negative), sample(lora_model, ours, negative)) == 0


START, END = 49406, 49407


def words(text: str) -> list:
    """Ids of a text, by stock ComfyUI, without start, end and padding."""
    (chunk,) = next(iter(load("tiny_sd15")[1].tokenize(text).values()))
    ids = [int(token) for token, _ in chunk]
    return ids[1 : ids.index(END)]


@torch.inference_mode()
def tokens(text: str) -> list:
    """Token lists with Apply: "v0", "v1" where the person's vectors stand, else (id, weight)."""
    identity = make_identity("tiny_sd15")
    _, clip = apply("tiny_sd15", identity)
    vectors = next(iter(identity.tokens.values())).float()

    def plain(token, weight):
        if not torch.is_tensor(token):
            return int(token), weight
        return f"v{next(i for i, vector in enumerate(vectors) if torch.equal(vector, token))}", weight

    chunks = next(iter(clip.tokenize(text).values()))
    return [[plain(token, weight) for token, weight in chunk] for chunk in chunks]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("photo of <ann> smiling", ["photo of", 1.0, "v0 v1", 1.0, "smiling", 1.0]),
        ("photo of <ANN>'s dog", ["photo of", 1.0, "v0 v1", 1.0, "'s dog", 1.0]),
        ("a,<ann>,b", ["a,", 1.0, "v0 v1", 1.0, ",b", 1.0]),
        ("(photo of <ann>:1.3) smiling", ["photo of", 1.3, "v0 v1", 1.3, "smiling", 1.0]),
        ("(<ann>:0.5), \\(old\\) zebra", ["v0 v1", 0.5, ", \\(old\\) zebra", 1.0]),
        ("((<ann>)) and <ann>", ["v0 v1", 1.1 * 1.1, "and", 1.0, "v0 v1", 1.0]),
        ("ann <anna> < ann>", ["ann <anna> < ann>", 1.0]),
        ("photo of embedding:ann, smiling", ["photo of", 1.0, "v0 v1", 1.0, ", smiling", 1.0]),
    ],
)
@in_comfyui
def test_the_name_in_prompts(text, expected):
    wanted = []
    for part, weight in zip(expected[::2], expected[1::2]):
        entries = part.split() if part.startswith("v0") else words(part)
        wanted += [(entry, pytest.approx(weight)) for entry in entries]
    (chunk,) = tokens(text)
    end = [token for token, _ in chunk].index(END)
    assert chunk[0] == (START, 1.0)
    assert chunk[1:end] == wanted


@in_comfyui
def test_a_name_is_never_cut_by_a_chunk_border():
    for text in ["dog " * count + "<ann> runs" for count in range(72, 77)]:
        chunks = tokens(text)
        assert {len(chunk) for chunk in chunks} == {77}
        for chunk in chunks:
            people = [token for token, _ in chunk if isinstance(token, str)]
            assert people in ([], ["v0", "v1"]), text
        assert sum(token == "v0" for chunk in chunks for token, _ in chunk) == 1


def refuse(case: str) -> None:
    """Call with a MODEL, CLIP and identity that do not fit."""
    checkpoint = "tiny_sd21"
    model, clip, _ = load(checkpoint)
    _, other_clip, _ = load("tiny_sd15")
    require_pair = pack("nodes.comfy.models").require_pair
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
        require_pair(SimpleNamespace(model=refiner), clip)
    elif case == "no unet":
        require_pair(SimpleNamespace(model=SimpleNamespace()), clip)
    elif case == "no clip":
        apply(checkpoint, make_identity(checkpoint), on=(model, None))
    elif case == "two of one name":
        apply(
            checkpoint, make_identity(checkpoint, seed=9, name="Ann"), on=apply(checkpoint, make_identity(checkpoint))
        )
    elif case == "no vae":
        pack("nodes.comfy.models").require_vae(None, "sd1")
    else:
        apply(checkpoint, {"face": "of another pack"})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("clip of another family", "Expected the CLIP of Stable Diffusion 2.x (clip_h of width 1024), got clip_l"),
        ("identity of another family", "Expected a MODEL and CLIP of Stable Diffusion 1.x, on which <ann> was trained"),
        (
            "refiner",
            "Z-Image, Chroma, got SDXLRefiner with text width 1280",
        ),
        (
            "no unet",
            "Expected a MODEL of Stable Diffusion 1.x, Stable Diffusion 2.x, Stable Diffusion XL, FLUX.1, "
            "FLUX.2 Klein 4B, Z-Image, Chroma, got NoneType",
        ),
        ("no clip", "Expected the CLIP of Stable Diffusion 2.x (clip_h of width 1024), got no CLIP text encoder"),
        ("two of one name", "Expected people of different names in one CLIP, got two called <Ann>. Rename one with"),
        ("no vae", "Expected a VAE of 4 latent channels, got a checkpoint without one"),
        ("not an identity", "Expected IDENTITY from Load ID-EA Embedding, got a dict. Connect Load ID-EA Embedding."),
        ("kv of another checkpoint", "input_blocks.7.1.transformer_blocks.0.attn2.to_k of shape (320, 1024), got none"),
    ],
)
@in_comfyui
def test_what_does_not_fit_is_refused(case, message):
    with pytest.raises(pack("idea_core").IdeaError) as refused:
        refuse(case)
    assert message in str(refused.value)
