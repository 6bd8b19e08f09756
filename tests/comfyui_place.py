"""Where the tests find ComfyUI, and its Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent


def find_comfyui() -> Path | None:
    """COMFYUI_PATH, else the ComfyUI in whose custom_nodes the pack stands, else comfy-cli's default place."""
    if named := os.environ.get("COMFYUI_PATH"):
        place = Path(named).resolve()
        if not (place / "comfy").is_dir():
            raise SystemExit(f"Expected ComfyUI in COMFYUI_PATH, got {place}. Set it to the folder with main.py.")
        return place
    around = [PACK.parent.parent] if PACK.parent.name == "custom_nodes" else []
    places = [*around, Path.home() / "comfy" / "ComfyUI"]
    return next((place for place in places if (place / "comfy").is_dir()), None)


def version_of(comfyui: Path) -> str:
    """As ComfyUI's own file says it."""
    said = (comfyui / "comfyui_version.py").read_text("utf-8")
    return said.partition('__version__ = "')[2].partition('"')[0]


def find_python(comfyui: Path) -> Path:
    """COMFYUI_PYTHON, else the virtual environment in ComfyUI's folder, else this one."""
    if named := os.environ.get("COMFYUI_PYTHON"):
        return Path(named).absolute()
    places = [".venv/bin/python", "venv/bin/python", ".venv/Scripts/python.exe", "../python_embeded/python.exe"]
    return next((comfyui / place for place in places if (comfyui / place).exists()), Path(sys.executable))


def without_face_packages(python: Path) -> str:
    """What to say of a Python of ComfyUI's that lacks the packages that find faces; "" of one that has them."""
    if not subprocess.run([python, "-c", "import insightface, onnxruntime"], capture_output=True).returncode:
        return ""
    return f"ComfyUI's Python, {python}, lacks insightface or onnxruntime: install them there."
