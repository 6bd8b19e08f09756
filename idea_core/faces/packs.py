"""Where the face models lie: `<root>/models/<pack>/*.onnx`, as insightface keeps them. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FaceError
from ..names import one_form

_EXAMPLES = (
    "antelopev2 has scrfd_10g_bnkps.onnx and glintr100.onnx for these, buffalo_l det_10g.onnx and w600k_r50.onnx"
)


@dataclass(frozen=True)
class FacePack:
    """A folder of ONNX files with a detector and a recogniser among them, or a recogniser in one file.

    Attributes:
        file: name of the one file; "": all in the folder.
    """

    name: str
    folder: Path
    file: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """What its models have to do."""
        return ("recognition",) if self.file else ("detection", "recognition")

    def files(self) -> list[Path]:
        """Its ONNX files; those that detection and recognition usually have come first, to be opened first."""
        if self.file:
            return [self.folder / self.file]
        likely = ("det", "scrfd", "rec", "w600k", "glint")
        return sorted(self.folder.glob("*.onnx"), key=lambda p: (not p.stem.lower().startswith(likely), p.name))

    def without_detector(self) -> FaceError:
        """The error of one who looks for faces with a recogniser alone."""
        return FaceError(
            "a face detector",
            f"{self.name}, a recogniser alone",
            "Choose a whole pack; ID Encode and ID Similarity can do without, with aligned crops and `aligned`.",
        )


def take_models(pack: FacePack, load: Callable[[Path], tuple[str, Any]]) -> dict[str, Any]:
    """Open the pack's files until each task has a model.

    Args:
        load: path → task and model.

    Raises:
        FaceError: the pack lacks one; it names the files there and those expected.
    """
    models: dict[str, Any] = {}
    for path in pack.files():
        task, model = load(path)
        if task in pack.tasks:
            models.setdefault(task, model)
        if len(models) == len(pack.tasks):
            return models
    missing = next(task for task in pack.tasks if task not in models)
    names = ", ".join(path.name for path in pack.files()) or "no .onnx file"
    raise FaceError(
        f"a {missing} model in {pack.folder}", names, f"Unpack the whole face model pack there ({_EXAMPLES})."
    )


def pack_folders(roots: Iterable[Path]) -> list[Path]:
    """The folders that are searched for packs, one for each insightface folder."""
    return [Path(root) / "models" for root in roots]


def find_packs(roots: Iterable[Path]) -> dict[str, FacePack]:
    """Pack name → pack, over all insightface folders; the first folder that has a name wins.

    `<pack>/<pack>/*.onnx` is found too, since antelopev2's archive unpacks so; and a recogniser's file by itself.
    """
    packs: dict[str, FacePack] = {}
    for folder in pack_folders(roots):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = one_form(path.name)
            if path.suffix.lower() == ".onnx" and path.is_file():
                packs.setdefault(name, FacePack(name, folder, path.name))
            for place in (path, path / path.name):
                if any(place.glob("*.onnx")):
                    packs.setdefault(name, FacePack(name, place))
                    break
    return packs


def require_pack(name: str, roots: Iterable[Path]) -> FacePack:
    """The pack called `name`; FaceError lists the folders searched if there is none."""
    packs = find_packs(roots)
    if not isinstance(name, str) or one_form(name) not in packs:
        searched = ", ".join(str(folder) for folder in pack_folders(roots))
        raise FaceError(
            f"a face model pack {name!r} in {searched}",
            f"only {', '.join(packs)}" if packs else "none there",
            "Put the pack's .onnx files (for instance antelopev2 or buffalo_l) into a folder of its name there.",
        )
    return packs[one_form(name)]
