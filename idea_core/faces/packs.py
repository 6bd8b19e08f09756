"""Face models on disk, `<root>/models/<pack>/*.onnx`, as insightface keeps them, and what onnxruntime runs them on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import FaceError, IdeaError, MissingPackageError
from ..text.names import one_form
from .onnx_file import fault_in

logger = logging.getLogger(__name__)

KINDS = {"detection": "face detector (SCRFD)", "recognition": "face recogniser (ArcFace)"}
_EXAMPLES = (
    "antelopev2 has scrfd_10g_bnkps.onnx and glintr100.onnx for these, buffalo_l det_10g.onnx and w600k_r50.onnx"
)
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PROVIDER_CHOICES = ("auto", *PROVIDERS)
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed:)?(/\S+:\d+ .*\) )?")


@dataclass(frozen=True)
class FacePack:
    """A folder of ONNX files with a detector and a recogniser among them, or a recogniser in one file.

    Attributes:
        file: name of the one file; "": all in the folder.
    """

    name: str
    folder: Path
    file: str = ""

    def files(self) -> list[Path]:
        """Its ONNX files; those that usually detect or recognise come first, to be opened first."""
        if self.file:
            return [self.folder / self.file]
        likely = ("det", "scrfd", "rec", "w600k", "glint")
        return sorted(onnx_files(self.folder), key=lambda p: (not p.stem.lower().startswith(likely), p.name))


def load_models(pack: FacePack, load: Callable[[Path], tuple[str, Any]]) -> dict[str, Any]:
    """Open the pack's files until each task has a model. Files that cannot be opened are skipped and logged.

    Args:
        load: path → task and model.

    Raises:
        FaceError: a task has no model; it names the files, what is wrong with them, and those expected.
    """
    models: dict[str, Any] = {}
    tasks = ("recognition",) if pack.file else ("detection", "recognition")
    paths = pack.files()
    faults = {path: fault for path in paths if (fault := fault_in(path))}
    for path in paths:
        if path in faults or len(models) == len(tasks):
            continue
        try:
            task, model = load(path)
        except (IdeaError, MemoryError):
            raise
        except Exception as error:  # onnxruntime raises errors of many kinds
            faults[path] = reason_of(error)
            continue
        if task in tasks:
            models.setdefault(task, model)
    if missing := [task for task in tasks if task not in models]:
        got = ", ".join(f"{path.name} ({faults[path]})" if path in faults else path.name for path in paths)
        again = f"Copy or download {', '.join(path.name for path in faults)} again, or unpack" if faults else "Unpack"
        remedy = f"{again} the whole face model pack there ({_EXAMPLES})."
        raise unusable_model(missing[0], pack.folder / pack.file, got or "no .onnx file", remedy)
    if faults:
        skipped = ", ".join(f"{path.name} ({fault})" for path, fault in faults.items())
        logger.warning("ID-EA: passed over in the face models of %s: %s", pack.name, skipped)
    return models


def reason_of(error: Exception) -> str:
    """Why a model could not be opened, in one line, without the paths and signatures that onnxruntime puts first."""
    lines = _PREFIX.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def unusable_model(task: str, place: Path, got: str, remedy: str) -> FaceError:
    """The error if no model of a task can be opened."""
    return FaceError(f"a {KINDS[task]} model in {place}", got, remedy)


def onnx_files(folder: Path) -> list[Path]:
    """The ONNX files in a folder, without hidden ones, such as macOS's "._det.onnx"."""
    return [path for path in folder.glob("*.onnx") if not path.name.startswith(".") and path.is_file()]


def find_packs(roots: Iterable[Path]) -> dict[str, FacePack]:
    """Pack name → pack, over all insightface folders; the first folder that has a name wins.

    `<pack>/<pack>/*.onnx` is found too, since antelopev2's archive unpacks so; and a recogniser's file by itself.
    """
    packs: dict[str, FacePack] = {}
    for root in roots:
        folder = Path(root) / "models"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith("."):
                continue
            name = one_form(path.name)
            if path.suffix.lower() == ".onnx" and path.is_file():
                packs.setdefault(name, FacePack(name, folder, path.name))
            for place in (path, path / path.name):
                if onnx_files(place):
                    packs.setdefault(name, FacePack(name, place))
    return packs


def require_pack(name: str, roots: Iterable[Path]) -> FacePack:
    """The pack called `name`; FaceError lists the folders searched if there is none."""
    packs = find_packs(roots)
    if not isinstance(name, str) or one_form(name) not in packs:
        searched = ", ".join(str(Path(root) / "models") for root in roots)
        raise FaceError(
            f"a face model pack {name!r} in {searched}",
            f"only {', '.join(packs)}" if packs else "none there",
            "Put the pack's .onnx files (for instance antelopev2 or buffalo_l) into a folder of its name there.",
        )
    return packs[one_form(name)]


def require_onnxruntime() -> ModuleType:
    """onnxruntime, or `MissingPackageError` if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            "onnxruntime to be installed",
            f"no {error.name}",
            "Install an extra of id-ea with ComfyUI's Python, in the pack's folder: "
            'python -m pip install ".[face-cpu]" (face-gpu, face-directml: see "Install" in the README).',
        ) from error
    return onnxruntime


def choose_providers(choice: str) -> list[str]:
    """The providers for a session, all available in onnxruntime; the CPU is always the fallback.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        FaceError: the provider is not available.
    """
    available = require_onnxruntime().get_available_providers()
    wanted = PROVIDERS.values() if choice == "auto" else [PROVIDERS[choice]]
    usable = [provider for provider in wanted if provider in available]
    if not usable:
        raise FaceError(
            f"onnxruntime with {PROVIDERS[choice]}",
            f"only {', '.join(available)}",
            "Choose auto, or install the extra that brings it.",
        )
    return list(dict.fromkeys([usable[0], PROVIDERS["cpu"]]))
