"""The pack's face functions on networks that others trained on photographs of real people.

    python tools/real_faces.py work/faces
    python -m benchmarks.real_faces work/faces [--people 48] [--images 6]

The images are of people in three dimensions whom no model has seen, at 320 pixels; and one photograph in the public
domain, NASA's portrait of Eileen Collins, which comes with scikit-image.  Prints a table of each function, and adds it
to `benchmarks/results/real_faces.jsonl`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from idea_core.faces import Face, FacePack, IdEmbeds, OnnxEngine, encode_photos
from idea_core.faces.find import NEAREST, FaceSettings
from idea_core.faces.likeness import Scale
from idea_core.faces.score import embed_images, largest, similarity_to_mean
from idea_core.faces.torch_recogniser import TorchRecogniser
from idea_core.headless.cli import idea
from world3d.judges import DlibJudge, HseJudge, verification
from world3d.people import held_out_people
from world3d.picture import Portrait, picture, prepare
from world3d.scenes import draw_scene

from .tables import write

Judge = Callable[[np.ndarray, Face], np.ndarray]
RESULTS = Path(__file__).parent / "results" / "real_faces.jsonl"
SHOWN = ("mean_similarity_strict", "similarity_to_mean_detected", "detection_rate")
SIZE, SEED = 320, 21
ASCENT, STEP = 12, 0.01  # steps of gradient ascent on an image, and the largest change of a pixel in each


@click.command()
@click.argument("networks", type=click.Path(exists=True, path_type=Path))
@click.option("--people", type=int, default=48)
@click.option("--images", type=int, default=6, help="Of each person.")
def main(networks: Path, people: int, images: int) -> None:
    pack = FacePack("faceplugin", networks / "faceplugin")
    engine = OnnxEngine(pack, "cpu")
    rng = np.random.default_rng(SEED)
    photos = [[shot(portrait, rng) for _ in range(images)] for portrait in map(prepare, held_out_people(people))]
    judges = judges_of(engine, networks)
    tables = {
        "ID Encode": [encode(engine, photos)],
        "verification": [{"judge": name, **row} for name, row in verify(engine, judges, photos).items()],
        "outliers": [outliers(engine, photos)],
        "choice of face": [choose(engine, photos)],
        "ID Similarity": [similarity(engine, photos)],
        "gradients": gradients(engine, judges, photos),
        "photograph": [photograph(engine, photos)],
        "idea evaluate": [evaluate(pack, photos, person) for person in range(3)],
    }
    for what, rows in tables.items():
        write(RESULTS, what, "cpu", rows, people=people, images=images)


def judges_of(engine: OnnxEngine, networks: Path) -> dict[str, Judge]:
    """Functions (image, face) → embedding of unit length: the pack's recogniser, and two that the pack never asks."""
    dlib, hse = DlibJudge(networks / "dlib"), HseJudge(networks / "hse")
    raw: dict[str, Judge] = {
        "pack": engine.embed,
        "dlib": lambda image, face: dlib.embed(image, face.keypoints),
        "hse": lambda image, face: hse.embed(image, face.keypoints),
    }
    return {name: lambda image, face, net=net: unit(net(image, face)) for name, net in raw.items()}


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def shot(portrait: Portrait, rng: np.random.Generator) -> np.ndarray:
    return picture(portrait, draw_scene(rng), SIZE)


def encode(engine: OnnxEngine, photos: list[list[np.ndarray]]) -> dict:
    """What ID Encode says of each person's photos."""
    skip = FaceSettings(skip=True)
    reports = [encode_photos(engine, some, skip) for some in photos]
    faces = [photo for _, found in reports for photo in found]
    cosines = [photo.cosine for photo in faces if photo.chosen]
    return {
        "a face found": round(float(np.mean([photo.chosen is not None for photo in faces])), 4),
        "one face found": round(float(np.mean([len(photo.faces) == 1 for photo in faces])), 4),
        "cosine to the mean": round(float(np.mean(cosines)), 4),
    }


def verify(engine: OnnxEngine, judges: dict[str, Judge], photos: list[list[np.ndarray]]) -> dict[str, dict]:
    """Mean cosines of pairs, and true accepts, by each judge."""
    shown = [(person, photo) for person, some in enumerate(photos) for photo in some]
    faces = [largest(engine.detect(photo)) for _, photo in shown]
    who = np.array([person for (person, _), face in zip(shown, faces) if face])
    return {
        name: verification(np.stack([net(photo, face) for (_, photo), face in zip(shown, faces) if face]), who)
        for name, net in judges.items()
    }


def outliers(engine: OnnxEngine, photos: list[list[np.ndarray]]) -> dict:
    """One photo of somebody else among a person's: is it the one that ID Encode names?"""
    strangers, own = [], []
    for person, some in enumerate(photos):
        mixed = [*some[:-1], photos[(person + 1) % len(photos)][-1]]
        found = encode_photos(engine, mixed, FaceSettings(skip=True))[1]
        own += [photo.outlier for photo in found[:-1] if photo.chosen]
        strangers += [found[-1].outlier] if found[-1].chosen else []
    return {"stranger named": round(float(np.mean(strangers)), 4), "own photo named": round(float(np.mean(own)), 4)}


def choose(engine: OnnxEngine, photos: list[list[np.ndarray]]) -> dict:
    """Two people side by side: face = nearest picks the person, face = largest the nearer one."""
    nearest, biggest = [], []
    for person, some in enumerate(photos):
        other, right = photos[(person + 1) % len(photos)][-1], bool(person % 2)
        reference = encode_photos(engine, some[:-1], FaceSettings(skip=True))[0]
        pair = np.hstack([other, some[-1]] if right else [some[-1], other])
        nearest += _picked(engine, pair, FaceSettings(face=NEAREST, nearest_to=reference, skip=True), right)
        small = np.asarray(Image.fromarray(other).resize((SIZE // 2, SIZE // 2)))
        small = np.pad(small, ((SIZE // 2, 0), (0, 0), (0, 0)), mode="edge")
        pair = np.hstack([small, some[-1]] if right else [some[-1], small])
        biggest += _picked(engine, pair, FaceSettings(skip=True), right)
    return {"nearest": round(float(np.mean(nearest)), 4), "largest": round(float(np.mean(biggest)), 4)}


def _picked(engine: OnnxEngine, pair: np.ndarray, settings: FaceSettings, right: bool) -> list[bool]:
    """Whether the face of the person, on the right or left, is chosen; empty where not both faces are found."""
    found = encode_photos(engine, [pair], settings)[1][0]
    if found.chosen is None or len(found.faces) < 2:
        return []
    middle = (found.faces[0].center[0] + found.faces[-1].center[0]) / 2
    return [bool(found.chosen.center[0] > middle) == right]


def similarity(engine: OnnxEngine, photos: list[list[np.ndarray]]) -> dict:
    """ID Similarity: the last photo of everybody against each person, and the ends of its scale."""
    references = [encode_photos(engine, some[:-1], FaceSettings(skip=True))[0] for some in photos]
    tests = embed_images(engine, [some[-1] for some in photos], largest)
    present = tests.norm(dim=1) > 0
    table = torch.stack([similarity_to_mean(tests[present], reference.mean) for reference in references])
    own = torch.stack([similarity_to_mean(tests[n], references[n].mean) for n in range(len(photos)) if present[n]])
    first = table.argmax(0) == torch.arange(len(photos))[present]
    everybody, rows = IdEmbeds(tests, torch.ones(len(tests))), torch.arange(len(tests))
    scales = [Scale.of(mine, everybody.only(present & (rows != number))) for number, mine in enumerate(references)]
    return {
        "to oneself": round(float(own.mean()), 4),
        "to others": round(float((table.sum() - own.sum()) / (table.numel() - len(own))), 4),
        "right among all": round(float(first.float().mean()), 4),
        "100 % and 0 %": [round(float(np.mean([getattr(s, end) for s in scales])), 4) for end in ("same", "other")],
    }


def gradients(engine: OnnxEngine, judges: dict[str, Judge], photos: list[list[np.ndarray]]) -> list[dict]:
    """The recogniser in torch: equal to onnxruntime's, with right slopes; and who sees what its gradients change."""
    net, equal, slopes = TorchRecogniser(engine.recogniser_file), [], []
    moved: dict[str, list[tuple[float, float]]] = {name: [] for name in judges}
    for person in range(0, len(photos) - 1, 4):
        photo, goal = photos[person][0], photos[person + 1][0]
        face, wanted = largest(engine.detect(photo)), largest(engine.detect(goal))
        if face is None or wanted is None:
            continue
        points, pixels = torch.from_numpy(face.keypoints[None]).float(), torch.from_numpy(photo[None] / 255).float()
        target = torch.from_numpy(judges["pack"](goal, wanted))
        equal.append(float(net.embed(pixels, points)[0] @ torch.from_numpy(judges["pack"](photo, face))))
        slopes.append(slope_ratio(net, pixels, points, target))
        for _ in range(ASCENT):
            pixels = (pixels + STEP * unit_step(net, pixels, points, target)).clamp(0, 1)
        after = (pixels[0].numpy() * 255).round().astype(np.uint8)
        for name, judge in judges.items():
            theirs = judge(goal, wanted)
            moved[name].append((float(judge(photo, face) @ theirs), float(judge(after, face) @ theirs)))
    exact = {"torch against onnxruntime": min(equal), "finite difference / gradient": float(np.mean(slopes))}
    after = f"after {ASCENT} steps"
    return [exact, *({"judge": name, "before": b, after: a} for name, (b, a) in _means(moved).items())]


def _means(pairs: dict[str, list[tuple[float, float]]]) -> dict[str, list[float]]:
    return {name: np.mean(values, 0).tolist() for name, values in pairs.items()}


def slope_of(net: TorchRecogniser, pixels: Tensor, points: Tensor, target: Tensor) -> Tensor:
    """Gradient (1, H, W, 3) of the cosine to a target (512,)."""
    pixels = pixels.detach().requires_grad_(True)
    return torch.autograd.grad((net.embed(pixels, points) @ target).sum(), pixels)[0]


def unit_step(net: TorchRecogniser, pixels: Tensor, points: Tensor, target: Tensor) -> Tensor:
    gradient = slope_of(net, pixels, points, target)
    return gradient / gradient.abs().max()


@torch.no_grad()
def slope_ratio(net: TorchRecogniser, pixels: Tensor, points: Tensor, target: Tensor, reach: float = 2e-3) -> float:
    """The cosine's change along the gradient by central differences, over the gradient's own word for it."""
    with torch.enable_grad():
        gradient = slope_of(net, pixels, points, target)
    way = gradient / gradient.abs().max()
    ahead, behind = (float((net.embed(pixels + sign * reach * way, points) @ target).sum()) for sign in (1, -1))
    return (ahead - behind) / (2 * reach) / float((gradient * way).sum())


def photograph(engine: OnnxEngine, photos: list[list[np.ndarray]]) -> dict:
    """Eileen Collins's portrait: against itself changed, and against the people of the world."""
    from skimage.data import astronaut

    image = astronaut()
    own = encode_photos(engine, [image], FaceSettings())
    half = np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.LANCZOS))
    changed = {"mirrored": image[:, ::-1].copy(), "half the size": half, "darker": (image * 0.6).astype(np.uint8)}
    cosines = {
        name: float(encode_photos(engine, [other], FaceSettings())[0].mean @ own[0].mean)
        for name, other in changed.items()
    }
    others = embed_images(engine, [some[0] for some in photos], largest) @ own[0].mean
    return {"faces": len(own[1][0].faces), **cosines, "highest of the world": float(others.max())}


def evaluate(pack: FacePack, photos: list[list[np.ndarray]], person: int) -> dict:
    """The command itself, on three images of the person and three of somebody else."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sets = {"reference": photos[person][:3], "own": photos[person][3:6], "other": photos[person + 1][3:6]}
        for name, some in sets.items():
            (root / name).mkdir()
            for number, photo in enumerate(some):
                Image.fromarray(photo).save(root / name / f"{number}.png")
        faces = ["--face-models", str(pack.folder)]
        row = {}
        for name in ("own", "other"):
            arguments = ["evaluate", str(root / name), "--reference", str(root / "reference"), *faces]
            done = CliRunner().invoke(idea, [*arguments, "-o", str(root / name / "out"), "--json"])
            row |= {f"{name}: {key}": json.loads(done.stdout)[key] for key in SHOWN}
        return row


if __name__ == "__main__":
    main()
