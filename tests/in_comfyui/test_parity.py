"""ComfyUI and diffusers, given the same files, compute the same."""

import json
import math
import random

import pytest
import torch
from diffusers import UNet2DConditionModel
from emphasis_cases import CASES
from helpers import make_identity
from safetensors.torch import load_file, save_file

from idea_core import BASE_MODELS, Identity, TrainConfig, Trainer, celebrity_names
from idea_core.faces import Face, FacePack, OnnxEngine
from idea_core.headless.diffusers import DiffusersBackbone, People, load_pipeline
from idea_core.headless.diffusers.backbone import cross_attention_layers
from idea_core.headless.diffusers.ldm_config import UNET, ldm_config
from idea_core.text.emphasis import weighted_texts

PROMPT = r"photo of (<ann>:1.4) smiling, (not (a:0.6)) \(drawing\)"
LONG = "photo of a " + "very " * 70 + "happy <ann> smiling"
VAE = "random_kl.safetensors"
NAMES = ["brad pitt", "emma stone", "tom hanks"]


@pytest.fixture(scope="module")
def pipelines(base):
    loaded = {}

    def load(checkpoint: str):
        if checkpoint not in loaded:
            loaded.clear()  # one at a time fits into memory
            folder = base / "models"
            prediction = "v" if checkpoint.endswith("_v") else None  # tiny UNets lack the block that tells
            path, vae = folder / "checkpoints" / f"{checkpoint}.safetensors", folder / "vae" / VAE
            loaded[checkpoint] = load_pipeline(path, vae=vae, prediction=prediction)
        return loaded[checkpoint]

    return load


@pytest.mark.parametrize(
    "checkpoint", ["tiny_sd15", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tiny_sd21_v", "tiny_sdxl"))]
)
def test_some_steps_train_the_same_person(base, probe, pipelines, tmp_path, checkpoint):
    """By photos, and by pictures that are drawn on the way."""
    steps = 2 if checkpoint == "tiny_sdxl" else 3  # its text encoders are large
    settings = {"steps": steps, "batch_size": 2, "seed": 3, "sample_latents": True}
    settings |= {"likeness_weight": 0.2, "likeness_images": 1, "likeness_sampling_steps": 2, "likeness_guidance": 2.0}
    names = celebrity_names() if checkpoint == "tiny_sd15" else NAMES  # which start between names, or crosswise
    target = tmp_path / "trained.safetensors"
    losses = probe("train_for_parity", checkpoint=checkpoint, vae=VAE, settings=settings, target=target, names=names)
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    id_embeds = torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(1)), dim=0)
    backbone, config = DiffusersBackbone(pipelines(checkpoint)), TrainConfig(**settings)
    engine = OnnxEngine(FacePack("testpack", base / "models" / "insightface" / "models" / "testpack"), "cpu")
    engine.detect = lambda photo: [Face.aligned(len(photo))]
    trainer = Trainer.of(backbone, images, id_embeds, config, names, engine=engine)
    start = {key: tensor.clone() for key, tensor in trainer.person.kv.state_dict().items()}
    ours = trainer.run()
    theirs = load_file(target)
    mine = trainer.person.state_dict() | trainer.person.kv.state_dict()
    assert mine.keys() == theirs.keys()
    errors = {key: (mine[key] - theirs[key]).abs() for key in mine}
    # Adam makes a full step of a gradient that is all rounding, so single entries may be further apart
    assert max(error.square().mean().sqrt() for error in errors.values()) <= 3e-5
    assert max(error.max() for error in errors.values()) <= 5e-3
    assert ours == pytest.approx(losses, rel=1e-4)
    assert max((mine[key] - start[key]).abs().max().item() for key in start) > 1e-3
    trainer.optimizer.zero_grad()
    trainer._likeness_gradients(trainer.sampler.draw())
    gradients = [part.grad for part in trainer.person.parameters() if part.grad is not None]
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3


@pytest.mark.parametrize(
    ("checkpoint", "prompt"),
    [
        ("tiny_sd15", PROMPT),
        pytest.param("tiny_sd21", LONG, marks=pytest.mark.slow),
        pytest.param("tiny_sdxl", LONG, marks=pytest.mark.slow),
        pytest.param("tiny_sd15", LONG, marks=pytest.mark.slow),
        pytest.param("tiny_sd21", PROMPT, marks=pytest.mark.slow),
    ],
)
def test_a_person_gives_the_same_prediction(probe, pipelines, tmp_path, checkpoint, prompt):
    strengths = {"strength": 0.8, "kv_strength": 0.6}
    probe("unet_call", checkpoint=checkpoint, prompt=prompt, target=tmp_path, **strengths)
    seen, identity = load_file(tmp_path / "call.safetensors"), Identity.load(tmp_path / "identity.safetensors")
    pipeline = pipelines(checkpoint)
    people = People(pipeline, [identity], **strengths)
    condition, backbone = people.encode(prompt), DiffusersBackbone(pipeline)
    assert (condition.context - seen["context"]).abs().max() <= 1e-5
    with torch.no_grad():
        without = backbone.predict(seen["x"], seen["timesteps"], condition)
        with people.kv():
            output = backbone.predict(seen["x"], seen["timesteps"], condition)
    assert (output - seen["output"]).abs().max() <= 1e-5
    assert (without - seen["output"]).abs().max() > 1e-2


def test_weights_are_read_alike(probe):
    generator = random.Random(0)
    lengths = [generator.randrange(1, 24) for _ in range(2000)]
    prompts = [*CASES, *("".join(generator.choices("()()\\:.15 ab", k=length)) for length in lengths)]
    for prompt, theirs in zip(prompts, probe("weights_in", prompts=prompts)):
        assert weighted_texts(prompt) == [tuple(one) for one in theirs], prompt


@pytest.mark.parametrize("layout", ["old", "new"])
def test_a_scaled_fp8_checkpoint_is_the_same_model_in_both(comfyui, base, probe, tmp_path, layout):
    if layout == "new" and not (comfyui / "comfy" / "quant_ops.py").exists():
        pytest.skip("this ComfyUI does not know the layout")
    checkpoints = base / "models" / "checkpoints"
    path = checkpoints / f"fp8_{layout}.safetensors"
    plain = load_file(checkpoints / "tiny_sd15.safetensors")
    scaled, meant = in_scaled_fp8(plain, layout)
    save_file(scaled, path)
    save_file(meant, tmp_path / "meant.safetensors")
    vae = base / "models" / "vae" / VAE
    pipeline, other = (load_pipeline(file, vae=vae) for file in (path, tmp_path / "meant.safetensors"))
    theirs = other.unet.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in pipeline.unet.state_dict().items())
    call = {"checkpoint": path.stem, "prompt": "photo of a dog", "strength": 0.0, "kv_strength": 0.0}
    seen = seen_by_unet(probe, tmp_path / "seen", **call)
    path.unlink()  # other tests list what is there
    condition = People(pipeline, []).encode("photo of a dog")
    with torch.no_grad():
        output = DiffusersBackbone(pipeline).predict(seen["x"], seen["timesteps"], condition)
    assert (output - seen["output"]).abs().max() <= 1e-5


def in_scaled_fp8(weights: dict, layout: str) -> tuple[dict, dict]:
    """A checkpoint whose UNet's matrices are stored as ComfyUI stores them in fp8, and what it stands for."""
    scaled, meant = dict(weights), dict(weights)
    for key, weight in weights.items():
        if key.startswith(UNET) and key.endswith(".weight") and weight.ndim == 2:
            scale = weight.float().abs().max() / 448  # float8_e4m3fn's largest number
            layer = key.removesuffix(".weight")
            scaled[key] = (weight.float() / scale).to(torch.float8_e4m3fn)
            scaled[f"{layer}.{'scale_weight' if layout == 'old' else 'weight_scale'}"] = scale
            meant[key] = scaled[key].float() * scale
            if layout == "new":
                said = json.dumps({"format": "float8_e4m3fn", "full_precision_matrix_mult": True})
                scaled[f"{layer}.comfy_quant"] = torch.tensor(list(said.encode()), dtype=torch.uint8)
    if layout == "old":
        scaled[f"{UNET}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return scaled, meant


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "sd1",
            {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8, "use_linear_projection": False},
        ),
        ("sd2", {"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True, "cross_attention_dim": 1024}),
        ("sdxl", {"transformer_layers_per_block": [1, 2, 10], "projection_class_embeddings_input_dim": 2816}),
    ],
)
def test_the_layouts_of_published_checkpoints_are_told_from_their_weights(probe, family, expected):
    layout = probe("unet_layout", family=family)
    zero = torch.zeros((), dtype=torch.float16)  # one number in memory, whatever the shape
    weights = {key: zero.expand(shape) for key, shape in layout.items()}
    found, config = ldm_config(weights, "checkpoint")
    unet = UNet2DConditionModel.from_single_file(weights, original_config=config, torch_dtype=torch.float16)
    assert found == family
    assert {key: unet.config[key] for key in expected} == expected
    ours = cross_attention_layers(unet)
    assert {name: tuple(layer.weight.shape) for name, layer in ours.items()} == keys_and_values(layout)
    assert sum(tensor.numel() for tensor in unet.state_dict().values()) == sum(map(math.prod, layout.values()))


@pytest.mark.parametrize(("family", "megabytes"), [("sd1", 6), ("sd2", 10), ("sdxl", 36)])
def test_files_of_default_settings_are_small(probe, tmp_path, family, megabytes):
    rank, kv = BASE_MODELS[family].kv_rank, {}
    for layer, (rows, columns) in keys_and_values(probe("unet_layout", family=family)).items():
        kv |= {
            f"{layer}.lora_up.weight": torch.randn(rows, rank),
            f"{layer}.lora_down.weight": torch.randn(rank, columns),
        }
    identity = make_identity(family, kv=kv).to(torch.float16)
    assert identity.save(tmp_path / "alice.safetensors").stat().st_size <= megabytes * 1e6


def keys_and_values(layout: dict) -> dict[str, tuple[int, int]]:
    """Cross attention's layer → (rows, columns), of a published UNet."""
    return {
        key.removeprefix("model.").removesuffix(".weight"): tuple(shape)
        for key, shape in layout.items()
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }


FLAGS = {
    "--use-split-cross-attention": 1e-5,
    "--use-quad-cross-attention": 1e-5,
    "--use-pytorch-cross-attention": 1e-5,
    "--fp32-text-enc": 1e-5,
    "--fp16-text-enc": 1e-2,
    "--fp16-unet": 2e-2,
    "--bf16-unet": 1e-1,
}
"""ComfyUI's option → how far the UNet's output, of spread 1, may be from the plain run's."""


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["tiny_sd15", "tiny_sdxl"])
def test_comfyuis_options_change_no_more_than_rounding(start_probe, probe, tmp_path, checkpoint):
    call = {"checkpoint": checkpoint, "prompt": "photo of <ann> smiling", "strength": 1.0, "kv_strength": 1.0}
    plain = seen_by_unet(probe, tmp_path / "plain", **call)["output"]
    bare = seen_by_unet(probe, tmp_path / "bare", **{**call, "prompt": "photo of a dog smiling"})["output"]
    errors = {}
    for flag in FLAGS:
        with start_probe(flag) as other:
            errors[flag] = (seen_by_unet(other, tmp_path / flag, **call)["output"] - plain).abs().max().item()
    assert {flag: error for flag, error in errors.items() if not error <= FLAGS[flag]} == {}
    assert min(errors["--fp16-unet"], errors["--bf16-unet"]) > 0  # the option was heard
    assert (bare - plain).abs().max() > 2 * max(FLAGS.values())


def seen_by_unet(probe, folder, **call) -> dict:
    folder.mkdir()
    probe("unet_call", target=folder, **call)
    return load_file(folder / "call.safetensors")
