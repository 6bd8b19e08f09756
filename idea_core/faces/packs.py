"""Where the face models lie: `<root>/models/<pack>/*.onnx`, as insightface keeps them. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import FaceError


@dataclass(frozen=True)
class FacePack:
    """A folder of ONNX files with a detector and a recogniser among them."""

    name: str
    folder: Path

    def files(self) -> list[Path]:
        """Its ONNX files; those that detection and recognition usually have come first, to be opened first."""
        likely = ("det", "scrfd", "rec", "w600k", "glint")
        return sorted(self.folder.glob("*.onnx"), key=lambda p: (not p.stem.lower().startswith(likely), p.name))


def pack_folders(roots: Iterable[Path]) -> list[Path]:
    """The folders that are searched for packs, one for each insightface folder."""
    return [Path(root) / "models" for root in roots]


def find_packs(roots: Iterable[Path]) -> dict[str, FacePack]:
    """Pack name → pack, over all insightface folders; the first folder that has a name wins.

    `<pack>/<pack>/*.onnx` is found too: antelopev2's archive unpacks so.
    """
    packs: dict[str, FacePack] = {}
    for folder in pack_folders(roots):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            for place in (path, path / path.name):
                if any(place.glob("*.onnx")):
                    packs.setdefault(path.name, FacePack(path.name, place))
                    break
    return packs


def require_pack(name: str, roots: Iterable[Path]) -> FacePack:
    """The pack called `name`; FaceError lists the folders searched if there is none."""
    packs = find_packs(roots)
    if name not in packs:
        searched = ", ".join(str(folder) for folder in pack_folders(roots))
        raise FaceError(
            f"a face model pack {name!r} in {searched}",
            f"only {', '.join(packs)}" if packs else "none there",
            "Put the pack's .onnx files (for instance antelopev2 or buffalo_l) into a folder of its name there.",
        )
    return packs[name]
