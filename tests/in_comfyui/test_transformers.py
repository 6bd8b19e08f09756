"""FLUX.1, FLUX.2 Klein, Z-Image and Chroma in real ComfyUI: training and Apply see the same, and the base stays.

The models are tiny and of random weights: nothing here says how like a person images become.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from inside import INSIDE, in_comfyui

if INSIDE:
    import folder_paths
    from probes import apply, encode, error, face, notices, pack, photos, weights_hash
    from probes_transformers import denoised, drawn, load_transformer, on, positive, stranger, trained_transformer
    from tiny_transformers import FILES, NETWORKS, PUBLISHED

    import nodes

slow = pytest.mark.slow
PROMPT = "a photo of {}, smiling"
NAMED = PROMPT.format("<ann>")
FAMILIES = ["flux1", *(pytest.param(name, marks=slow) for name in ("klein4b", "zimage", "chroma"))]


@pytest.fixture
def family_of_flux(tiny_family) -> str:
    return tiny_family("flux1")


def sampled_loss(model, clip, seen: tuple) -> float:
    """The loss of a batch, from the images that ComfyUI's sampling sees."""
    latents, noisy, levels = seen
    text, errors = positive(model, clip, NAMED), []
    for image, mixed, sigma in zip(latents, noisy, levels.tolist()):
        got = denoised(model, text, mixed[None], sigma)
        errors.append(((got - image) / -sigma).square().mean().item())
    return sum(errors) / len(errors)


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
@pytest.mark.parametrize("space", ["output", "input"])
@in_comfyui
def test_the_sampler_sees_what_the_training_saw_and_the_base_stays(family, space):
    model, clip, _ = load_transformer(family)
    before = weights_hash(model, clip.patcher)
    identity, losses, seen = trained_transformer(family, 3, space=space)
    assert min(losses) < losses[0]
    assert identity.kv_scope == "person" and identity.has_rows == (space == "output")
    with torch.inference_mode():
        patched, named = apply(family, identity, kv_strength=1.0, on=on(family))
        assert abs(sampled_loss(patched, named, seen) - losses[-1]) <= 1e-5
        without, _ = apply(family, identity, kv_strength=0.0, on=on(family))
        assert abs(sampled_loss(without, named, seen) - losses[-1]) > 1e-4
        assert torch.equal(drawn(patched, named, "a dog"), drawn(model, clip, "a dog"))
    assert weights_hash(model, clip.patcher) == before


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
@in_comfyui
def test_two_people_are_the_same_in_either_order_and_whoever_is_not_named_does_nothing(family):
    ann, bob = stranger(family, "ann", 1), stranger(family, "bob", 2)
    one = replace(ann, rows=None)  # in the text encoder's input
    with torch.inference_mode():
        alone = apply(family, one, kv_strength=1.0, on=on(family))
        first = apply(family, bob, kv_strength=1.0, on=alone)
        second = apply(family, one, kv_strength=1.0, on=apply(family, bob, kv_strength=1.0, on=on(family)))
        both = [drawn(*applied, "<ann> beside <bob>") for applied in (first, second)]
        assert torch.equal(*both)
        assert torch.equal(drawn(*first, "<ann> here"), drawn(*alone, "<ann> here"))
        only_text = apply(family, bob, strength=0.0, kv_strength=0.0001, on=alone)
        assert error(drawn(*only_text, "<ann> beside <bob>"), both[0]) > 1e-3
        assert torch.equal(drawn(*first, "nobody"), drawn(*on(family), "nobody"))


@slow
@in_comfyui
def test_beside_other_people_an_adapter_acts_at_its_persons_own_tokens(family_of_flux):
    family = family_of_flux
    ann, bob = (replace(stranger(family, name, seed), rows=None) for seed, name in enumerate(("ann", "bob")))

    def changed(prompt: str, marked: str, **options):
        """The text's tokens that ann's adapter changes, and those of a person."""
        texts = []
        with torch.inference_mode():
            for one in (ann, replace(ann, grounding=-3 * ann.grounding)):
                _, named = apply(family, bob, on=apply(family, one, on=on(family), **options))
                texts.append(encode(named, prompt)[0])
        (first, entries), (second, _) = texts
        key = f"idea_{ {'ann': ann, 'bob': bob}[marked].digest()[:16] }"
        own = entries["idea_people"].places[key][0, :, 0].bool()
        assert own.sum() == 2
        return (first - second).abs().amax(-1)[0] > 0, own

    rows, own = changed("<ann> beside <bob>", "ann")
    assert torch.equal(rows, own)
    rows, _ = changed("<ann> beside a dog", "ann")
    assert rows.all()
    rows, own = changed("a dog beside <bob>", "bob", branch="all prompts")
    assert torch.equal(rows, ~own)


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
@in_comfyui
def test_people_of_one_mean_name_are_told_apart(family):
    """Those of one ID-Enhancer differ in their rows alone."""
    ann = stranger(family, "ann", 1)
    bob = replace(stranger(family, "bob", 2), tokens=ann.tokens)
    with torch.inference_mode():
        alone = [apply(family, one, kv_strength=1.0, on=on(family)) for one in (ann, bob)]
        both = apply(family, bob, kv_strength=1.0, on=alone[0])
        for name, applied in zip(("<ann>", "<bob>"), alone):
            assert torch.equal(drawn(*both, f"{name} here"), drawn(*applied, f"{name} here"))
        assert error(drawn(*both, "<ann> here"), drawn(*both, "<bob> here")) > 1e-3


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
@in_comfyui
def test_rows_of_many_people_at_once_are_those_of_each_in_a_whole_prompt(family):
    """A causal language model reads nothing after the person there; T5 sees all of a prompt."""
    count, base = 9, pack("idea_core").BASE_MODELS[family]
    (encoder, width), *_ = base.encoders.items()
    vectors = {encoder: list(0.1 * torch.randn(count, 2, width, generator=torch.Generator().manual_seed(1)))}
    with torch.inference_mode(), pack("nodes.comfy.backbone").backbone_of(*load_transformer(family)) as backbone:
        many = backbone.encode([backbone.read(PROMPT, False)] * count, vectors)
        prompt = backbone.read(PROMPT)
        alone = [backbone.encode([prompt], {encoder: [rows]}) for rows in vectors[encoder]]
    assert torch.equal(many.places, torch.cat([one.places for one in alone]))
    assert (many.context.shape[1] == int(many.places[0, -1]) + 1) == base.transformer.causal
    index = many.places[..., None].expand(-1, -1, many.context.shape[-1])
    got, wanted = (context.gather(1, index) for context in (many.context, torch.cat([one.context for one in alone])))
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max() and error(got[0], got[1]) > 1e-3
    for key, entry in alone[0].entries.items():
        assert isinstance(entry, torch.Tensor) and many.entries[key].shape[0] == count


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
@in_comfyui
def test_the_stock_lora_loader_reads_keys_and_values_that_were_trained_on_the_whole_model(family):
    identity, losses, seen = trained_transformer(family, 2, space="output", kv_scope="whole")
    path = Path(folder_paths.get_folder_paths("loras")[0], f"ann_{family}.safetensors")
    identity.save(path, None)
    with torch.inference_mode():
        model, named = apply(family, identity, kv_strength=0.0, on=on(family))
        (patched,) = nodes.LoraLoaderModelOnly().load_lora_model_only(model, path.name, 1.0)
        assert len(patched.patches) == len(identity.kv) // 4  # up and down of keys and values that share a weight
        assert abs(sampled_loss(patched, named, seen) - losses[-1]) <= 1e-5
        ours, _ = apply(family, identity, kv_strength=1.0, on=on(family))
        assert abs(sampled_loss(ours, named, seen) - losses[-1]) <= 1e-5
        assert abs(sampled_loss(model, named, seen) - losses[-1]) > 1e-4


@slow
@in_comfyui
def test_a_stock_embedding_prompt_reads_the_vectors_and_nothing_else_of_the_file(family_of_flux):
    _, clip, _ = load_transformer(family_of_flux)
    ann = stranger(family_of_flux, "ann", 1)
    folder = Path(folder_paths.get_folder_paths("embeddings")[0])
    ann.save(folder / "ann_of_flux.safetensors", None)
    clip = clip.clone()
    clip.tokenizer = type(clip.tokenizer)(embedding_directory=[str(folder)])
    tokens = clip.tokenize("a photo of embedding:ann_of_flux here")
    vectors = [token for token, *_ in tokens["t5xxl"][0] if isinstance(token, torch.Tensor)]
    assert torch.equal(torch.stack(vectors).float(), ann.tokens["t5xxl"].float())
    assert not [token for token, *_ in tokens["l"][0] if isinstance(token, torch.Tensor)]


@slow
@in_comfyui
def test_keys_and_values_without_a_layer_are_left_out_and_the_text_acts(family_of_flux):
    family = family_of_flux
    ann = stranger(family, "ann", 1)
    other = replace(ann, kv={key: weight[:64, :64] for key, weight in ann.kv.items()})
    with torch.inference_mode():
        model, named = apply(family, other, kv_strength=1.0, on=on(family))
        assert not model.injections and not model.patches
        without, _ = apply(family, ann, kv_strength=0.0, on=on(family))
        assert torch.equal(drawn(model, named, "<ann>"), drawn(without, named, "<ann>"))
        assert error(drawn(model, named, "<ann>"), drawn(model, named, "nobody")) > 1e-3


@slow
@in_comfyui
def test_keys_and_values_that_a_kernel_reads_past_its_layer_are_left_out(family_of_flux):
    """Nunchaku's layers hold their weights as `qweight`, and are never called."""
    family, ann = family_of_flux, stranger(family_of_flux, "ann", 1)
    with torch.inference_mode():
        model, clip = on(family)
        whole = pack("nodes.comfy.models").fused_layers(model.model.diffusion_model, ann.base)
        layer = model.model.diffusion_model.get_submodule(next(iter(whole)))
        layer.qweight = None
        try:
            assert len(pack("nodes.comfy.models").fused_layers(model.model.diffusion_model, ann.base)) == len(whole) - 1
            found = []
            said = notices(lambda: found.append(apply(family, ann, kv_strength=1.0, on=(model, clip))))
        finally:
            del layer.qweight
        ((patched, named),) = found
        assert not patched.injections and "this MODEL has no such layers" in said[0]
        without, _ = apply(family, ann, kv_strength=0.0, on=on(family))
        assert torch.equal(drawn(patched, named, "<ann>"), drawn(without, named, "<ann>"))


@in_comfyui
def test_a_model_that_also_takes_an_image_is_refused_for_training(family_of_flux):
    """FLUX.1 Canny and Depth take twice the channels."""
    model, clip, _ = load_transformer(family_of_flux)
    require, sizes = pack("nodes.comfy.models").require_pair, model.model.model_config.unet_config
    before = sizes["in_channels"]
    assert require(model, clip, trainable=True) == "flux1" == require(model, clip)
    try:
        sizes["in_channels"] = 2 * before
        assert require(model, clip) == "flux1"
        with pytest.raises(
            pack("idea_core.errors").BaseModelError, match="a MODEL of 16 latent channels to train on, got 32"
        ):
            require(model, clip, trainable=True)
    finally:
        sizes["in_channels"] = before


@pytest.mark.parametrize(
    "where", ["before", *(pytest.param(one, marks=slow) for one in ("after", "in place", "between"))]
)
@in_comfyui
def test_keys_and_values_find_the_text_among_rows_of_another_node(family_of_flux, where):
    """Stock USO Style Reference puts them before the text, and Flux KV Cache changes the image alone."""
    family, ann = family_of_flux, stranger(family_of_flux, "ann", 1)

    def with_rows(given: dict) -> dict:
        text, ids = given["txt"], given["txt_ids"]
        own, own_ids, n = torch.ones_like(text[:, :3]), torch.zeros_like(ids[:, :3]), text.shape[1] // 2
        parts = {
            "before": ([own, text], [own_ids, ids]),
            "after": ([text, own], [ids, own_ids]),
            "in place": ([text], [ids]),
            "between": ([text[:, :n], own, text[:, n:]], [ids[:, :n], own_ids, ids[:, n:]]),
        }[where]
        return given | {"txt": torch.cat(parts[0], 1), "txt_ids": torch.cat(parts[1], 1)}

    seen: list[torch.Tensor] = []
    with torch.inference_mode():
        model, named = apply(family, ann, kv_strength=1.0, on=on(family))
        without, same = apply(family, ann, kv_strength=0.0, on=on(family))
        for one in (model, without):
            one.set_model_post_input_patch(with_rows)
        norm = model.model.diffusion_model.double_blocks[0].txt_attn.norm  # of the text's queries and keys
        watch = norm.register_forward_pre_hook(lambda _norm, given: seen.append(given[1].clone()))
        try:
            said = notices(lambda: drawn(model, named, "<ann>"))
            drawn(without, same, "<ann>")
        finally:
            watch.remove()
        ((_, entries),) = encode(named, "<ann>")
    changed = (seen[0] - seen[1]).abs().amax((0, 1, 3)).nonzero().flatten().tolist()
    (marks,) = (mark[0, :, 0].nonzero().flatten() for mark in entries["idea_people"].places.values())
    if where == "between":
        assert changed == [] and "has changed the text" in said[0]
    else:
        assert changed == (marks + 3 * (where == "before")).tolist() and not said


@pytest.mark.parametrize("family", [pytest.param("zimage", marks=slow)], indirect=True)
@in_comfyui
def test_reference_images_put_their_rows_before_the_text(family):
    """Where Z-Image's own code has the prompt, beside a reference with a text and one without."""
    ann = stranger(family, "ann", 1)
    with torch.inference_mode():
        model, named = apply(family, ann, kv_strength=1.0, on=on(family))
        network, seen = model.model.diffusion_model, {}
        ((context, entries),) = positive(model, named, "<ann> here")
        described = [torch.randn(1, 33, context.shape[-1])]
        more = {"reference_latents": [torch.zeros(1, 16, 4, 4)] * 2, "reference_latents_text_embeds": described}
        marked = pack("nodes.comfy.scoped_kv")._rows
        watch = [
            network.cap_embedder.register_forward_hook(lambda _m, _x, made: seen.update(text=made)),
            network.context_refiner[0].register_forward_pre_hook(
                lambda _m, given: seen.update(all=given[0].clone(), first=marked.get().first)
            ),
        ]
        try:
            denoised(model, [[context, {**entries, **more}]], torch.zeros(1, 16, 8, 8), 0.5)
        finally:
            for one in watch:
                one.remove()
    first, count = seen["first"], seen["text"].shape[1]
    assert first == 64 + 32 and count == context.shape[1]
    assert torch.equal(seen["all"][:, first : first + count], seen["text"])


@in_comfyui
def test_network_and_text_encoder_are_loaded_together_only_for_a_gradient_through_both(family_of_flux):
    model, clip, vae = load_transformer(family_of_flux)
    with torch.inference_mode(), pack("nodes.comfy.backbone").backbone_of(model, clip, vae) as backbone:
        caption, ids = backbone.read(PROMPT), backbone.tokenize("brad pitt")
        vectors = {key: [backbone.embed_tokens(key, part).clone()] for key, part in ids.items()}
        network, text = backbone._patcher, backbone._text_patcher
        condition = backbone.encode([caption], vectors)
        assert backbone._needed() == [text]
        latents = torch.zeros(1, 16, 8, 8)
        backbone.predict(latents, torch.ones(1), condition)
        assert backbone._needed() == [network]
        backbone.encode([backbone.read("a dog")])
        assert backbone._needed() == [text]
        with torch.inference_mode(False), torch.enable_grad():
            traced = {key: [rows.clone().requires_grad_() for rows in parts] for key, parts in vectors.items()}
            backbone.predict(latents.clone(), torch.ones(1), backbone.encode([caption], traced))
        assert backbone._needed() == [network, text]
        backbone.encode([caption], vectors)
        assert backbone._needed() == [network, text]  # both are in use: nothing is moved for a preview
        backbone.free_text()
        assert backbone._needed() == [network]


@in_comfyui
def test_a_weight_that_does_nothing_is_said(family_of_flux):
    def said(person, text: str) -> list[str]:
        with torch.inference_mode():
            _, named = apply(family_of_flux, person, on=on(family_of_flux))
            return notices(lambda: encode(named, PROMPT.format(text)))

    ann = stranger(family_of_flux, "ann", 1)
    assert said(ann, "<ann>") == [] == said(replace(ann, rows=None), "(<ann>:1.3)")
    (line,) = said(ann, "(<ann>:1.3)")
    assert "A weight on <ann> in a prompt does nothing" in line


@in_comfyui
def test_a_zeroed_negative_of_a_persons_prompt_gets_no_keys_and_values(family_of_flux):
    family = family_of_flux
    ann = replace(stranger(family, "ann", 1, scope="whole"), rows=None)
    with torch.inference_mode():
        model, named = apply(family, ann, kv_strength=1.0, kv_scope="prompts with the person", on=on(family))
        prompt = nodes.ConditioningZeroOut().zero_out(positive(model, named, NAMED))[0]
        latent = {"samples": torch.zeros(1, 16, 8, 8)}
        got, wanted = (
            nodes.KSampler().sample(one, 5, 1, 1.0, "euler", "simple", prompt, prompt, latent, 1.0)[0]["samples"]
            for one in (model, on(family)[0])
        )
        assert torch.equal(got, wanted)


@in_comfyui
def test_a_transformer_in_8_bits_trains_and_draws(family_of_flux):
    family = family_of_flux
    _, clip, vae = load_transformer(family)
    with torch.inference_mode():
        (small,) = nodes.UNETLoader().load_unet(FILES[family][0], "fp8_e4m3fn")
    kinds = {weight.dtype for weight in small.model.diffusion_model.state_dict().values()}
    before = weights_hash(small, clip.patcher)
    identity, losses, seen = trained_transformer(family, 3, loaded=(small, clip, vae), space="output")
    assert torch.float8_e4m3fn in kinds and min(losses) < losses[0]
    with torch.inference_mode():
        patched, named = apply(family, identity, kv_strength=1.0, on=(small, clip))
        assert abs(sampled_loss(patched, named, seen) - losses[-1]) <= 1e-5
        without, _ = apply(family, identity, kv_strength=0.0, on=(small, clip))
        assert abs(sampled_loss(without, named, seen) - losses[-1]) > 1e-4
        assert torch.equal(drawn(patched, named, "a dog"), drawn(small, clip, "a dog"))
    assert weights_hash(small, clip.patcher) == before


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
@in_comfyui
def test_a_cancelled_training_goes_on_to_where_a_whole_one_ends(family, tmp_path):
    core, state = pack("idea_core"), pack("idea_core.training.state")
    config = core.TrainConfig(steps=3, batch_size=1, space="output", kv_lr=0.1)
    captions = ["a photo of {}", "{} alone in a garden with a red wall"]
    ends, path = [], Path(tmp_path, "state")
    for part in ("whole", "broken", "resumed"):
        with torch.inference_mode(), pack("nodes.comfy.backbone").backbone_of(*load_transformer(family)) as backbone:
            run = core.Trainer.of(backbone, photos(), face(), config, ["tom hanks"], captions)
            if part == "resumed":
                assert state.restore_state(run, path, "same") == 2
            run.run((lambda step, _, run=run: run.stop() if step == 2 else None) if part == "broken" else None)
            if part == "broken":
                state.save_state(run, path, "same")
            ends.append(run.identity("ann").digest())
    assert ends[2] == ends[0] != ends[1]


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
@in_comfyui
def test_an_id_enhancer_learns_by_text_and_its_people_stand_in_prompts(family):
    core, anchor = pack("idea_core.enhancers"), pack("idea_core.method.anchor")
    _ = [pack(f"idea_core.enhancers.{room}") for room in ("config", "dataset", "drawing", "pretrained", "trainer")]
    names = ["brad pitt", "emma stone", "tom hanks"]
    faces = torch.nn.functional.normalize(torch.randn(6, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    with torch.inference_mode(), pack("nodes.comfy.backbone").backbone_of(*load_transformer(family)) as backbone:
        people = torch.arange(3).repeat_interleave(2)
        pictures = core.dataset.PeoplePictures(torch.zeros(6, 4, 2, 2), faces, people, [PROMPT] * 6, names)
        config = core.config.EnhancerTrainConfig(steps=3, batch_size=1)
        start = anchor.enhancer_anchor(backbone, names, 2)
        with torch.inference_mode(False):
            run = core.trainer.EnhancerTrainer(backbone, start, pictures, config)
            run.run()
        enhancer = core.pretrained.PretrainedEnhancer.of(run.model, backbone)
        drawing = core.config.DatasetConfig(resolution=64, sampling_steps=1, sampling_batch_size=4)
        captions = [backbone.read(caption) for caption in ("a photo of {}, x", "a photo of {} y", "{}, a photo")]
        sampler = core.drawing.ImageSampler(backbone, drawing)
        images = sampler.draw_faces(run.model, captions, faces[:3].to(backbone.device), range(3))
        assert len(images) == 3 and images.isfinite().all()
    assert all(loss == loss for loss in run.losses) and len(run.losses) == 3
    identity = enhancer.identity("ann", faces[0])
    with torch.inference_mode():
        model, clip = on(family)
        _, named = apply(family, identity, on=(model, clip))
        assert not torch.equal(encode(named, NAMED)[0][0], encode(named, PROMPT.format("somebody"))[0][0])
        assert torch.equal(encode(named, "a dog")[0][0], encode(clip, "a dog")[0][0])


@pytest.mark.parametrize(
    "family", ["klein4b", *(pytest.param(one, marks=slow) for one in ("flux1", "zimage", "chroma"))]
)
@in_comfyui
def test_a_file_of_the_real_sizes_is_small(family, tmp_path):
    core = pack("idea_core")
    base, generator = core.BASE_MODELS[family], torch.Generator().manual_seed(0)
    network = NETWORKS[family](**PUBLISHED[family])()  # on the device "meta"
    layers, kv = pack("nodes.comfy.models").fused_layers(network, base), {}
    for layer, fused in layers.items():
        width = network.get_submodule(layer).in_features
        for part in (fused.keys, fused.values):
            kv[f"{part}.lora_up.weight"] = torch.randn(width, base.kv_rank, generator=generator)
            kv[f"{part}.lora_down.weight"] = torch.randn(base.kv_rank, width, generator=generator)
    whole = core.Identity(
        name="ann",
        base_ref=core.BaseModelRef(family, "flow", None, heads=8, beta=0.4),
        tokens={encoder: torch.randn(2, width) for encoder, width in base.encoders.items()},
        rows=torch.randn(2, base.width),
        grounding=torch.randn(2, base.module_width()),
        adapter=core.GatedAttention(base.width, width=base.module_width()).state_dict(),
        kv=kv,
    ).to(torch.float16)
    bare = replace(whole, kv={}, adapter={}, grounding=None)
    sizes = [one.save(Path(tmp_path, "ann.safetensors"), None).stat().st_size for one in (whole, bare)]
    assert len(layers) >= 25 and sizes[0] <= 12e6 and sizes[1] <= 48e3, sizes
