"""Apply ID-Adapter beside what else hangs on a MODEL, a CLIP or a conditioning, inside real ComfyUI.

With any neighbour, stock or as other packs hang it into a MODEL, a picture with Apply is the one that the neighbour
makes without Apply, from a conditioning that has the difference of the adapter in it already. The strength of the
MODEL is another than that of the CLIP, so that the MODEL has something to do.
"""

from __future__ import annotations

import functools
import gc
import importlib
import weakref
from pathlib import Path

import pytest
import torch
from inside import INSIDE, in_comfyui
from safetensors.torch import load_file, save_file

if INSIDE:
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management
    import comfy.ops
    import comfy.samplers
    import comfy.sd
    import folder_paths
    from probes import apply, encode, error, load, make_identity, notices, sample, unmarked, weights_hash

    import nodes

PERSON, NEGATIVE = "photo of <ann> smiling", "blurry"
STRENGTH = 0.6  # of the MODEL; the CLIP's is 1
slow = pytest.mark.slow
ACT = [  # and whether each of them acts on the tiny UNet, which lacks what some of them change
    ("attention replaced", True),
    pytest.param("attention patched", True, marks=slow),
    ("LoRA", True),
    ("merge", True),
    pytest.param("Deep Shrink", False, marks=slow),
    pytest.param("RescaleCFG", True, marks=slow),
    pytest.param("FreeU", False, marks=slow),
    pytest.param("PAG", False, marks=slow),
    pytest.param("SAG", True, marks=slow),
    pytest.param("HyperTile", False, marks=slow),
    pytest.param("ToMe", False, marks=slow),
    pytest.param("LCM sampling", True, marks=slow),
    pytest.param("zero SNR", True, marks=slow),
    pytest.param("attention multiplied", True, marks=slow),
]


def applied(on=None, strength: float = STRENGTH, **options) -> tuple:
    """A MODEL with the person at one strength, and a CLIP with the person at another."""
    ann = make_identity("tiny_sd15")
    return apply("tiny_sd15", ann, strength, on=on, **options)[0], apply("tiny_sd15", ann, on=on)[1]


def baked(conditioning: list) -> list:
    """A conditioning with the adapter's difference in it as strongly as the MODEL wants it, and nothing beside it."""
    out = []
    for text, entries in unmarked(conditioning):
        carried = next(carried for _, marked in conditioning if (carried := marked.get("idea_people")))
        for difference in carried.differences.values():
            text = carried.plain + STRENGTH * difference
        out.append([text, entries])
    return out


def stock(module: str, name: str, **inputs) -> tuple:
    """What a node of ComfyUI gives, whichever way it is written."""
    node = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
    if hasattr(node, "define_schema"):
        given = node.execute(**inputs)
        return getattr(given, "args", given)
    return getattr(node(), node.FUNCTION)(**inputs)


def patched(module: str, name: str, **inputs):
    """A node that changes a MODEL."""
    return lambda model: stock(module, name, model=model, **inputs)[0]


def attention_replaced(model):
    """As IP-Adapter packs do it: the layer's attention, and that of more text beside it."""
    model = model.clone()
    more = torch.randn(1, 4, 320, generator=torch.Generator().manual_seed(3))

    def replace(q, k, v, extra_options):
        heads = extra_options["n_heads"]
        attend = comfy.ldm.modules.attention.optimized_attention
        image = more.to(q).expand(len(q), -1, -1)
        return attend(q, k, v, heads) + 0.5 * attend(q, image, image, heads)

    for block in (("input", 1), ("output", 0), ("output", 1)):
        model.set_model_attn2_replace(replace, *block, 0)
    return model


def attention_patched(model):
    """The text made longer in each cross attention."""
    model = model.clone()
    model.set_model_attn2_patch(lambda q, k, v, _: (q, torch.cat([k, k * 0.5], 1), torch.cat([v, v * 0.5], 1)))
    return model


@functools.cache
def lora() -> str:
    """A file that changes keys of cross attention, self attention and text encoder, by name."""
    generator = torch.Generator().manual_seed(5)
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    widths = {f"{unet}_attn2_to_k": 768, f"{unet}_attn1_to_q": 320}
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    weights = {}
    for layer, (rows, columns) in {**{key: (320, width) for key, width in widths.items()}, text: (768, 768)}.items():
        weights[f"{layer}.lora_up.weight"] = torch.randn(rows, 2, generator=generator) * 0.2
        weights[f"{layer}.lora_down.weight"] = torch.randn(2, columns, generator=generator) * 0.2
    folder = folder_paths.get_folder_paths("loras")[0]
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file(weights, f"{folder}/neighbour.safetensors")
    return "neighbour.safetensors"


def merged(model):
    other = load("tiny_sd15")[0].clone()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v.weight"
    other.add_patches({key: ("diff", (torch.full((320, 768), 0.02),))}, 1.0)
    return stock("nodes_model_merging", "ModelMergeSimple", model1=model, model2=other, ratio=0.5)[0]


NEIGHBOURS = {
    "attention replaced": attention_replaced,
    "attention patched": attention_patched,
    "LoRA": lambda model: nodes.LoraLoader().load_lora(model, load("tiny_sd15")[1], lora(), 0.8, 0.0)[0],
    "merge": merged,
    "FreeU": patched("nodes_freelunch", "FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2),
    "PAG": patched("nodes_pag", "PerturbedAttentionGuidance", scale=3.0),
    "SAG": patched("nodes_sag", "SelfAttentionGuidance", scale=0.5, blur_sigma=2.0),
    "torch.compile": patched("nodes_torch_compile", "TorchCompileModel", backend="inductor"),
    "HyperTile": patched("nodes_hypertile", "HyperTile", tile_size=256, swap_size=2, max_depth=0, scale_depth=False),
    "ToMe": patched("nodes_tomesd", "TomePatchModel", ratio=0.3),
    "Deep Shrink": patched(
        "nodes_model_downscale",
        "PatchModelAddDownscale",
        block_number=1,
        downscale_factor=2.0,
        start_percent=0.0,
        end_percent=0.5,
        downscale_after_skip=True,
        downscale_method="bicubic",
        upscale_method="bicubic",
    ),
    "RescaleCFG": patched("nodes_model_advanced", "RescaleCFG", multiplier=0.7),
    "LCM sampling": patched("nodes_model_advanced", "ModelSamplingDiscrete", sampling="lcm", zsnr=False),
    "zero SNR": patched("nodes_model_advanced", "ModelSamplingDiscrete", sampling="v_prediction", zsnr=True),
    "attention multiplied": patched("nodes_attention_multiply", "UNetCrossAttentionMultiply", q=1.1, k=0.9, v=1, out=1),
}


def require_beside(neighbour: str, acts: bool = True) -> None:
    """A picture with Apply before the neighbour and after it is the one without Apply; and either changes something."""
    plain, clip, _ = load("tiny_sd15")
    model, clip = applied()
    change = NEIGHBOURS[neighbour]
    positive, negative = encode(clip, PERSON), encode(clip, NEGATIVE)
    wanted = sample(change(plain), baked(positive), negative)
    assert wanted.isfinite().all()
    assert error(sample(change(model), positive, negative), wanted) <= 1e-5
    after = applied(on=(change(plain), load("tiny_sd15")[1]))[0]
    assert error(sample(after, positive, negative), wanted) <= 1e-5
    assert error(sample(change(plain), positive, negative), wanted) > 1e-3  # the adapter acts
    assert error(sample(model, positive, negative), wanted) > 1e-3 or not acts
    assert notices(lambda: sample(change(applied(end=0.9)[0]), positive, negative)) == []


@pytest.mark.parametrize(("neighbour", "acts"), ACT)
@in_comfyui
@torch.inference_mode()
def test_a_neighbour_sees_the_adapted_text(neighbour, acts):
    require_beside(neighbour, acts)


@slow
@in_comfyui(by="run_unwatched")  # it starts the compiler
@torch.inference_mode()
def test_a_compiled_model_sees_the_adapted_text():
    require_beside("torch.compile", acts=False)


@in_comfyui
@torch.inference_mode()
def test_a_lora_of_the_text_encoder_may_stand_before_or_after():
    model, clip, _ = load("tiny_sd15")
    ann = make_identity("tiny_sd15")
    loader = nodes.LoraLoader().load_lora
    before = apply("tiny_sd15", ann, kv_strength=1.0, on=loader(model, clip, lora(), 1.0, 1.0))
    after = loader(*apply("tiny_sd15", ann, kv_strength=1.0), lora(), 1.0, 1.0)
    texts = [encode(clip, PERSON) for _, clip in (before, after)]
    without = encode(apply("tiny_sd15", ann)[1], PERSON)
    carried = [text[0][1]["idea_people"] for text in texts]
    pictures = [sample(model, text, encode(clip, NEGATIVE)) for (model, clip), text in zip((before, after), texts)]
    assert error(texts[0][0][0], texts[1][0][0]) <= 1e-5
    assert error(*(next(iter(one.differences.values())) for one in carried)) <= 1e-5
    assert error(*pictures) <= 2e-3  # the UNet's half weights are changed in another order, and rounded
    assert error(texts[0][0][0], without[0][0]) > 1e-3  # the LoRA acts


@slow
@pytest.mark.parametrize("guider", ["CFG", "CFG 1", "DualCFG", "PerpNeg"])
@in_comfyui
@torch.inference_mode()
def test_a_guider_sees_the_adapted_text(guider):
    plain, _, _ = load("tiny_sd15")
    model, clip = applied()
    positive, other, negative = (encode(clip, text) for text in (PERSON, "<ann> in a forest", NEGATIVE))

    def picture(model, positive, other):
        both = {"positive": positive, "negative": negative}
        three = {**both, "empty_conditioning": other}
        two = {"cond1": positive, "cond2": other, "negative": negative, "style": "regular"}
        module, name, inputs = {
            "CFG": ("custom_sampler", "CFGGuider", {**both, "cfg": 3.0}),
            "CFG 1": ("custom_sampler", "CFGGuider", {**both, "cfg": 1.0}),
            "DualCFG": ("custom_sampler", "DualCFGGuider", {**two, "cfg_conds": 3.0, "cfg_cond2_negative": 2.0}),
            "PerpNeg": (
                "perpneg",
                "PerpNegGuider",
                {**three, "cfg": 3.0, "neg_scale": 0.5},
            ),
        }[guider]
        guided = stock(f"nodes_{module}", name, model=model, **inputs)[0]
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 3)
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        euler = comfy.samplers.sampler_object("euler")
        return guided.sample(noise, torch.zeros_like(noise), euler, sigmas, disable_pbar=True, seed=1).clone()

    wanted = picture(plain, baked(positive), baked(other))
    assert error(picture(model, positive, other), wanted) <= 1e-5
    assert error(picture(plain, positive, other), wanted) > 1e-3  # the adapter acts


@in_comfyui
@torch.inference_mode()
def test_weight_hooks_and_the_adapter():
    """LoRAs tied to a conditioning, and to a CLIP without a schedule."""
    plain, _plain_clip, _ = load("tiny_sd15")
    model, clip = applied()
    (hooks,) = stock("nodes_hooks", "CreateHookLora", lora_name=lora(), strength_model=0.8, strength_clip=0.8)
    hooked = stock("nodes_hooks", "SetClipHooks", clip=clip, hooks=hooks, apply_to_conds=True, schedule_clip=False)[0]
    positive, negative = encode(hooked, PERSON), encode(clip, NEGATIVE)
    wanted = sample(plain, baked(positive), negative)
    assert error(sample(model, positive, negative), wanted) <= 1e-5
    assert error(sample(plain, positive, negative), wanted) > 1e-3  # the adapter acts
    assert error(sample(plain, baked(encode(clip, PERSON)), negative), wanted) > 1e-3  # the hook acts


@in_comfyui
@torch.inference_mode()
def test_a_controlnet_and_the_adapter():
    """A ControlNet of random weights on both conditionings."""
    unet = load("tiny_sd15")[0].model.model_config.unet_config
    settings = {key: value for key, value in unet.items() if key not in ("out_channels", "disable_unet_model_creation")}
    torch.manual_seed(4)
    net = comfy.cldm.cldm.ControlNet(
        **{**settings, "dtype": torch.float32}, hint_channels=3, operations=comfy.ops.disable_weight_init
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    control = comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))
    plain, _, _ = load("tiny_sd15")
    model, clip = applied()
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))

    def controlled(positive):
        apply_control = nodes.ControlNetApplyAdvanced().apply_controlnet
        return apply_control(positive, encode(clip, NEGATIVE), control, hint, 1.0, 0.0, 1.0)

    positive = encode(clip, PERSON)
    bare = sample(plain, baked(positive), encode(clip, NEGATIVE))
    with_apply, without = sample(model, *controlled(positive)), sample(plain, *controlled(baked(positive)))
    assert error(with_apply, without) <= 1e-5
    assert error(without, bare) > 1e-3  # the ControlNet acts


@pytest.mark.parametrize(("kind", "channels"), [("inpainting", 9), pytest.param("pix2pix", 8, marks=slow)])
@in_comfyui
@torch.inference_mode()
def test_a_person_fits_models_that_see_a_picture_to_change(kind, channels):
    """A person made for the ordinary model; `channels` of the first layer."""
    weights = load_file(folder_paths.get_full_path("checkpoints", "tiny_sd15.safetensors"))
    first = "model.diffusion_model.input_blocks.0.0.weight"
    more = torch.randn(320, channels - 4, 3, 3, generator=torch.Generator().manual_seed(6)) * 0.1
    weights[first] = torch.cat([weights[first], more.to(weights[first])], dim=1)
    plain, plain_clip, vae = comfy.sd.load_state_dict_guess_config(weights)[:3]
    model, clip = applied(on=(plain, plain_clip))
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    given = {"pixels": pixels, "vae": vae, "positive": encode(clip, PERSON), "negative": encode(clip, NEGATIVE)}
    if kind == "inpainting":
        mask = torch.zeros(1, 64, 64)
        mask[:, :, 32:] = 1
        positive, negative, _ = nodes.InpaintModelConditioning().encode(**given, mask=mask, noise_mask=False)
    else:
        positive, negative, _ = stock("nodes_ip2p", "InstructPixToPixConditioning", **given)
    wanted = sample(plain, baked(positive), negative)
    assert plain.model.model_config.unet_config["in_channels"] == channels
    assert error(sample(model, positive, negative), wanted) <= 1e-5
    assert error(sample(plain, positive, negative), wanted) > 1e-3  # the adapter acts


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (8, 8, 8), (2, 16, 8), (1, 9, 13)])
@in_comfyui
@torch.inference_mode()
def test_batches_and_sides(shape):
    """Batches, pictures that are not square, and conditionings of several lengths in a batch."""
    plain, _, _ = load("tiny_sd15")
    model, clip = applied()
    positive, negative = encode(clip, PERSON), encode(clip, "blurry " * 90)
    how = {"steps": 2, "shape": shape}
    pictures = sample(model, positive, negative, **how), sample(plain, baked(positive), negative, **how)
    assert error(*pictures) <= 1e-5


@in_comfyui
@torch.inference_mode()
def test_models_may_be_pushed_out():
    """All of them between two pictures; and what is left when the last clone is dropped."""
    plain, clip, _ = load("tiny_sd15")
    before = weights_hash(plain, clip.patcher)
    model, person_clip = apply("tiny_sd15", make_identity("tiny_sd15"), kv_strength=1.0)
    positive, negative = encode(person_clip, PERSON), encode(person_clip, NEGATIVE)
    first = sample(model, positive, negative)
    comfy.model_management.unload_all_models()
    again = sample(model, positive, negative)
    comfy.model_management.unload_all_models()
    gone = weakref.ref(model)
    del model, person_clip, positive
    gc.collect()
    assert torch.equal(first, again)
    assert weights_hash(plain, clip.patcher) == before
    assert gone() is None


@in_comfyui
@torch.inference_mode()
def test_a_model_goes_as_soon_as_nothing_uses_it():
    """The MODEL with Apply, and the UNet in it."""
    plain, clip, _ = comfy.sd.load_checkpoint_guess_config(
        folder_paths.get_full_path("checkpoints", "tiny_sd15.safetensors")
    )[:3]
    model, person_clip = applied(on=(plain, clip), kv_strength=1.0, kv_scope="prompts with the person")
    sample(model, encode(person_clip, PERSON), encode(person_clip, NEGATIVE), steps=1)
    comfy.model_management.unload_all_models()
    model_left, unet_left = weakref.ref(model), weakref.ref(plain.model.diffusion_model)
    gc.collect()
    gc.disable()
    try:
        del model, plain, clip, person_clip
        assert model_left() is None
        assert unet_left() is None
    finally:
        gc.enable()


@in_comfyui
@torch.inference_mode()
def test_clones_share_the_persons_weights():
    model, _ = apply("tiny_sd15", make_identity("tiny_sd15"), kv_strength=1.0)

    def storages(*models):
        found = {}
        for one in models:
            patches = [part for patches in one.patches.values() for _, part, *_ in patches]
            for part in patches:
                for tensor in getattr(part, "weights", part[1] if isinstance(part, tuple) else ()):
                    if torch.is_tensor(tensor):
                        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(found.values())

    assert storages(model, model.clone(), model.clone().clone()) == storages(model) > 0


@slow
@in_comfyui
@torch.inference_mode()
def test_every_sampler():
    """Two steps of each, with Apply, against the conditioning with the difference in it."""
    plain, _, _ = load("tiny_sd15")
    model, clip = applied()
    positive, negative = encode(clip, PERSON), encode(clip, NEGATIVE)

    def difference(sampler: str) -> float:
        how = {"steps": 2, "sampler": sampler}
        return error(sample(model, positive, negative, **how), sample(plain, baked(positive), negative, **how))

    errors = {name: difference(name) for name in comfy.samplers.KSampler.SAMPLERS}
    assert len(errors) > 30
    assert max(errors.values()) <= 1e-4, errors


@slow
@in_comfyui
@torch.inference_mode()
def test_at_strength_0_no_sampler_and_scheduler_gives_another_picture():
    """To the bit, in two steps."""
    plain, _, _ = load("tiny_sd15")
    ann = make_identity("tiny_sd15", kv=False)
    model, clip = apply("tiny_sd15", ann, 0.0, kv_strength=1.0)[0], apply("tiny_sd15", ann)[1]
    positive, negative = encode(clip, PERSON), encode(clip, NEGATIVE)
    bare = [[positive[0][1]["idea_people"].plain, unmarked(positive)[0][1]]]
    different = []
    for sampler in comfy.samplers.KSampler.SAMPLERS:
        for scheduler in comfy.samplers.KSampler.SCHEDULERS:
            how = {"steps": 2, "sampler": sampler, "scheduler": scheduler}
            if not torch.equal(sample(model, positive, negative, **how), sample(plain, bare, negative, **how)):
                different.append(f"{sampler}, {scheduler}")
    assert different == []
