"""The world as an experiment uses it: its models on disk, photos of a person, and measures of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.faces import Face, FaceEngine
from idea_core.faces.score import embed_faces, largest, pick_faces
from idea_core.headless.diffusers import GenerateConfig, People
from idea_core.headless.diffusers.generate import conditions, sample
from idea_core.headless.jobs.sources import FaceSource
from idea_core.identity.identity import Identity
from idea_core.text.captions import PLACEHOLDER

from .align import TEMPLATE, align
from .face_nets import POOL, Judge, second_recogniser
from .images import to_photo, to_tensor
from .packed import unpack
from .people import named_people, other_people
from .render import render
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, Scenes, draw_scenes

SHIPPED = Path(__file__).parent / "data"
MODELS = unpack(SHIPPED, Path(__file__).parent / ".expanded")
BASE, FACES, ENHANCER = MODELS / "base", MODELS / "faces", MODELS / "enhancer.safetensors"
FACE_MODELS = FaceSource(FACES, provider="cpu")
AT_ONCE = 24  # images sampled together
GUIDANCE, SAMPLING_STEPS = 3.0, 20  # at which the base model follows prompts and draws its people best
DRAWING_STEPS = 10  # sampling steps; twice as many do not raise the face similarity
ASKED = {"background": BACKGROUNDS, "hat": HATS, "expression": EXPRESSIONS}  # what obedience is measured by


def draw_photos(count: int, generator: torch.Generator) -> Scenes:
    """Scenes without sketches and paintings, which have no colours to judge."""
    scenes = draw_scenes(count, generator)
    scenes.style.zero_()
    return scenes


def photos_of(face: Tensor, scenes: Scenes, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) of one person (K,) in several scenes."""
    return render(face.expand(len(scenes), -1), scenes, generator)


def notes_of(scenes: Scenes) -> list[str]:
    """What each photo shows besides the person: "smiling, on a blue background"."""
    return [scenes.caption(number, "").split(", ", 1)[1] for number in range(len(scenes))]


def portraits(count: int) -> tuple[str, ...]:
    """Prompts with `{}` for a person, each of another scene."""
    scenes = draw_photos(count, torch.Generator().manual_seed(6))
    return tuple(scenes.caption(number, PLACEHOLDER) for number in range(count))


def all_names() -> tuple[str, ...]:
    """The names of the world's celebrities."""
    return tuple(named_people().names())


def face_engine() -> FaceEngine:
    return FACE_MODELS.load()


@cache
def enhancer() -> PretrainedEnhancer:
    """The ID-Enhancer that was pretrained on the world's celebrities."""
    return PretrainedEnhancer.load(ENHANCER)


@cache
def strangers_face() -> Tensor:
    """The embedding (512,) of one more person."""
    generator = torch.Generator().manual_seed(9)
    pictures = photos_of(other_people(1, seed=9)[0], draw_photos(4, generator), generator)
    return mean_face(pictures)


def mean_face(pictures: Tensor) -> Tensor:
    """The embedding (512,) of one person, of images (B, 3, H, W)."""
    return normalize(embed(pictures, largest_faces(pictures)).mean(0), dim=0)


@cache
def judge() -> Judge:
    return _weights_into(Judge(), FACES / "judge.safetensors")


@cache
def second() -> torch.nn.Module:
    """A recogniser of another architecture, trained on other people."""
    return _weights_into(second_recogniser(), FACES / "second.safetensors")


def largest_faces(pictures: Tensor) -> list[Face | None]:
    """The largest face of each image (B, 3, H, W); None without one."""
    return pick_faces(face_engine(), list(map(to_photo, pictures)), largest)


def embed(pictures: Tensor, faces: Sequence[Face | None]) -> Tensor:
    """Normalised embeddings (B, 512); zeros without a face."""
    return embed_faces(face_engine(), list(map(to_photo, pictures)), faces)


@torch.no_grad()
def embed_second(pictures: Tensor, faces: Sequence[Face | None]) -> Tensor:
    """Normalised embeddings (B, D) of the second recogniser; zeros without a face."""
    keypoints = torch.stack([TEMPLATE if face is None else torch.from_numpy(face.keypoints).float() for face in faces])
    crops = avg_pool2d(align(pictures, keypoints), POOL) * 2 - 1
    has_face = torch.tensor([[face is not None] for face in faces])
    return normalize(second()(crops), dim=1) * has_face


@torch.no_grad()
def obeyed(pictures: Tensor, scenes: Scenes) -> dict[str, Tensor]:
    """Whether each image has the wanted background, hat and expression: (B,) each."""
    answers = judge()(pictures)
    return {key: answers[key].argmax(1) == getattr(scenes, key) for key in ASKED}


def rates(answers: Mapping[str, Tensor]) -> dict[str, float]:
    return {key: round(float(answer.float().mean()), 4) for key, answer in answers.items()}


def draw(
    pipeline,
    identities: Sequence[Identity],
    prompts: Sequence[str],
    seed: int = 0,
    guidance: float = GUIDANCE,
    steps: int = SAMPLING_STEPS,
    strength: float = 1.0,
) -> Tensor:
    """An image (3, S, S) in 0…1 of each prompt; seeds count up. `strength` is that of adapters and K/V deltas."""
    people, config, pictures = People(pipeline, identities, strength, strength), GenerateConfig(steps, guidance), []
    inputs = [conditions(people, prompt) for prompt in prompts]
    for begin in range(0, len(prompts), AT_ONCE):
        part = inputs[begin : begin + AT_ONCE]
        pictures += sample(pipeline, people, part, range(seed + begin, seed + begin + len(part)), config)
    return to_tensor(pictures)


def cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine of rows."""
    return round(float((first * second).sum(1).mean()), 4)


def write_sheet(rows: Sequence[Tensor], path: Path, columns: int = 12, scale: int = 2) -> None:
    """Rows of pictures under each other, `columns` at a time."""
    lines = []
    for begin in range(0, len(rows[0]), columns):
        lines += [torch.cat(list(row[begin : begin + columns]), dim=2) for row in rows]
    width = max(line.shape[2] for line in lines)
    lines = [torch.nn.functional.pad(line, (0, width - line.shape[2]), value=1.0) for line in lines]
    image = Image.fromarray(to_photo(torch.cat(lines, dim=1)))
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def _weights_into(net: torch.nn.Module, file: Path) -> torch.nn.Module:
    net.load_state_dict({key: tensor.float() for key, tensor in load_file(file).items()})
    return net.eval().requires_grad_(False)
