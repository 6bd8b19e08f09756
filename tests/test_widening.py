"""A small base model as a checkpoint of Stable Diffusion 1.x computes the same, part by part and in one file."""

import json
import shutil

import pytest
import torch
from helpers import ROOT
from PIL import Image
from small_world import WORDS, small_pipeline
from torch.nn.functional import avg_pool2d, normalize

from idea_core import Identity
from idea_core.enhancers.model import EnhancerModel
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.errors import ConfigError
from idea_core.files.digest import file_digest
from idea_core.headless.diffusers import load_pipeline
from idea_core.headless.diffusers.single_file import clip_tokenizer
from world3d.comfyui import Contents, write_world
from world3d.examples import adapted
from world3d.somebody import everybody
from world3d.widening.enhancer import widen_enhancer, widened_weights
from world3d.widening.text import token_embeddings, wide_text_encoder, widen_text_encoder
from world3d.widening.unet import wide_unet, widen_unet
from world3d.widening.vae import SCALING_FACTOR, wide_vae, widen_vae
from world3d.world import World, read

NEAR = 1e-4
PROMPT = "a photo of alice archer, in front of a blue wall"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World.shipped(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("tokenizer"))


def ids(tokenizer, prompt: str = PROMPT) -> torch.Tensor:
    return tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids


def doubled(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, 2).repeat_interleave(2, 3)


@torch.no_grad()
def test_the_text_encoder(small):
    clip = clip_tokenizer()
    wide = wide_text_encoder(clip, layers=4)
    widen_text_encoder(small.text_encoder, small.tokenizer, wide, clip)
    expected = small.text_encoder(ids(small.tokenizer))[0]
    got = wide(ids(clip))[0]
    assert expected.std() > 0.5 and got.shape == (1, 77, 768)
    assert (got - expected.repeat_interleave(4, 2)).abs().max() < NEAR


def test_words_of_the_world_are_one_token_in_both_vocabularies(small):
    clip = clip_tokenizer()
    rows = token_embeddings(small.text_encoder, small.tokenizer, clip)
    table = small.text_encoder.get_input_embeddings().weight
    for word in WORDS:
        ours, theirs = small.tokenizer(word).input_ids, clip(word).input_ids
        assert len(ours) == len(theirs) == 3
        assert all(torch.equal(rows[b], table[a]) for a, b in zip(ours, theirs))
    cyber = clip("cyberpunk").input_ids[1]
    letters = [small.tokenizer.get_vocab()[letter] for letter in (*"cyberpun", "k</w>")]
    assert torch.allclose(rows[cyber], table[letters].mean(0))


@torch.no_grad()
@pytest.mark.parametrize("factor", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_the_unet(small, factor):
    wide = wide_unet(small.unet, factor).eval()
    widen_unet(small.unet, wide)
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 24, 24, generator=generator), torch.randn(2, 77, 192, generator=generator)
    times = torch.tensor([7, 800])
    expected = small.unet(latents, times, text).sample
    got = wide(latents, times, text.repeat_interleave(4, 2)).sample
    assert expected.std() > 0.1 and (got - expected).abs().max() < NEAR


@torch.no_grad()
def test_the_vae_at_twice_the_size(small):
    wide, vae = wide_vae().eval(), small.vae
    widen_vae(vae, wide)
    noise = torch.randn(1, 3, 192, 192, generator=torch.Generator().manual_seed(2))
    images = (4 * avg_pool2d(noise, 9, 1, 4)).clamp(-1, 1)
    expected, got = vae.encode(avg_pool2d(images, 2)).latent_dist, wide.encode(images).latent_dist
    latents = expected.mean * vae.config.scaling_factor
    assert latents.std() > 0.1 and (got.mean * SCALING_FACTOR - latents).abs().max() < NEAR
    ratio = vae.config.scaling_factor / SCALING_FACTOR
    assert torch.allclose(got.std, expected.std * ratio, rtol=1e-4)
    drawn, shown = vae.decode(expected.mean).sample, wide.decode(expected.mean * ratio).sample
    assert drawn.std() > 0.1 and (shown - doubled(drawn)).abs().max() < NEAR


@torch.no_grad()
def test_the_id_enhancer():
    torch.manual_seed(4)
    parts = [{"clip": torch.randn(2, 192)} for _ in range(3)]
    model = EnhancerModel(*parts).eval()
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    rows = [{"clip_l": part["clip"].repeat_interleave(4, 1)} for part in parts]
    wide = EnhancerModel(*rows).eval()
    wide.load_state_dict(widened_weights(model))
    faces, context = normalize(torch.randn(3, 512)), torch.randn(3, 77, 192)
    expected, got = model.tokens(faces)["clip"], wide.tokens(faces)["clip_l"]
    assert (got - expected.repeat_interleave(4, 2)).abs().max() < NEAR
    expected = model.adapter(context, model.fused(faces))
    got = wide.adapter(context.repeat_interleave(4, 2), wide.fused(faces))
    assert (expected - context).std() > 0.01 and (got - expected.repeat_interleave(4, 2)).abs().max() < NEAR


def test_the_shipped_id_enhancer_for_a_checkpoint(world):
    small = world.enhancer
    wide = widen_enhancer(small, "world.safetensors", "ab" * 32)
    assert (wide.base_model, wide.base_ref.base_checkpoint) == ("sd1", "world.safetensors")
    face = normalize(torch.randn(512, generator=torch.Generator().manual_seed(5)), dim=0)
    ours, theirs = small.identity("ann", face).tokens, wide.identity("ann", face).tokens
    (expected,), (got,) = ours.values(), theirs.values()
    assert got.shape == (2, 768)
    assert (got - expected.repeat_interleave(4, 1)).abs().max() < 2e-3 * expected.abs().max()  # half precision


@pytest.fixture(scope="module")
def contents(small, world) -> Contents:
    photos = {one.folder.name: [Image.fromarray(read(path)) for path in one.photos] for one in everybody(2)[:2]}
    return Contents(small, world.faces.folder, world.enhancer, photos)


@pytest.fixture(scope="module")
def comfyui(contents, tmp_path_factory):
    """A ComfyUI's folder after the world was written into it; 2 GB."""
    folder = tmp_path_factory.mktemp("comfyui")
    (folder / "models").mkdir()
    written = write_world(contents, folder)
    assert all(path.is_file() for path in written)
    yield folder
    shutil.rmtree(folder)


def test_no_comfyui(contents, tmp_path):
    with pytest.raises(ConfigError, match=r"main\.py"):
        write_world(contents, tmp_path)


@pytest.mark.slow
def test_what_a_comfyui_finds(comfyui):
    files = {str(path.relative_to(comfyui)) for path in comfyui.rglob("*") if path.is_file()}
    examples = {file for file in files if file.startswith("user/default/workflows/idea-world/")}
    assert len(examples) == 11 and files - examples == {
        "models/checkpoints/idea-world.safetensors",
        "models/idea/enhancers/idea-world.safetensors",
        "models/idea/idea-world-alice.safetensors",
        "models/idea/idea-world-bob.safetensors",
        "models/insightface/models/idea-world/det.onnx",
        "models/insightface/models/idea-world/rec.onnx",
        *(f"input/idea-world-{name}-{number}.png" for name in ("alice", "bob") for number in (1, 2)),
    }
    with Image.open(comfyui / "input" / "idea-world-bob-2.png") as image:
        assert image.size == (192, 192)
    checkpoint = comfyui / "models" / "checkpoints" / "idea-world.safetensors"
    loaded = PretrainedEnhancer.load(comfyui / "models" / "idea" / "enhancers" / "idea-world.safetensors")
    assert loaded.base_ref.base_hash == file_digest(checkpoint) and checkpoint.stat().st_size < 2.2e9
    alice = Identity.load(comfyui / "models" / "idea" / "idea-world-alice.safetensors")
    assert (alice.name, alice.base_model) == ("alice", "sd1")


def test_examples_name_what_is_written():
    """Each file, folder and size in an example is the world's."""
    for file in sorted((ROOT / "workflows").glob("[0-9]*.json")):
        graph, before = (json.loads(file.read_text("utf-8")) for _ in range(2))
        said = [value for node in adapted(graph)["nodes"] for value in node.get("widgets_values") or ()]
        assert not {512, 768, "antelopev2", "example.png", "v1-5-pruned-emaonly-fp16.safetensors"} & {
            value for value in said if isinstance(value, (int, str)) and not isinstance(value, bool)
        }
        same = [(node["id"], node["type"], len(node.get("widgets_values") or ())) for node in before["nodes"]]
        assert same == [(node["id"], node["type"], len(node.get("widgets_values") or ())) for node in graph["nodes"]]


@pytest.mark.slow
@torch.no_grad()
def test_one_file_draws_the_same_image(small, comfyui):
    wide = load_pipeline(comfyui / "models" / "checkpoints" / "idea-world.safetensors")
    assert list(wide.unet.config.block_out_channels) == [320, 640, 1280, 1280]
    images = []
    for pipeline in (small, wide):
        generator = torch.Generator().manual_seed(3)
        latents = torch.randn(1, 4, 24, 24, generator=generator)
        how = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt", "latents": latents}
        images.append(pipeline(PROMPT, **how).images)
    assert images[1].shape == (1, 3, 192, 192) and images[0].std() > 0.01
    assert (doubled(images[0]) - images[1]).abs().max() < 5e-3  # the file is in half precision
