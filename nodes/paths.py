"""The folders that the pack reads and writes, in ComfyUI's terms."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..idea_core.errors import IdentityFileError

IDENTITIES = "idea"
"""ComfyUI's folder name for identities: `models/idea` and `output/idea`."""
INSIGHTFACE = "insightface"
AUTOSAVE = "autosave"
EXTENSION = ".safetensors"


def register_folders() -> None:
    """Make ComfyUI search for identities and face models; extra_model_paths.yaml may add more places."""
    models = Path(folder_paths.models_dir)
    folder_paths.add_model_folder_path(IDENTITIES, str(models / IDENTITIES))
    folder_paths.add_model_folder_path(IDENTITIES, str(output_folder()))
    paths, _ = folder_paths.folder_names_and_paths[IDENTITIES]
    folder_paths.folder_names_and_paths[IDENTITIES] = (paths, {EXTENSION})
    folder_paths.add_model_folder_path(INSIGHTFACE, str(models / INSIGHTFACE))


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / IDENTITIES


def insightface_roots() -> list[Path]:
    return [Path(path) for path in folder_paths.get_folder_paths(INSIGHTFACE)]


def identity_files() -> list[str]:
    return folder_paths.get_filename_list(IDENTITIES)


def identity_path(name: str) -> Path:
    """Path of a file that `identity_files` lists."""
    path = folder_paths.get_full_path(IDENTITIES, name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(IDENTITIES))
        raise IdentityFileError(f"an identity {name!r} in {folders}", "none", "Refresh the list and choose again.")
    return Path(path)


def saved_path(name: str) -> Path:
    """Where an identity called `name` (subfolders allowed) is written; never outside the output folder."""
    folder = output_folder()
    path = Path(os.path.normpath(folder / (name.removesuffix(EXTENSION) + EXTENSION)))
    if not path.is_relative_to(folder) or path.stem.startswith(".") or not name.removesuffix(EXTENSION).strip("/\\ "):
        raise IdentityFileError(
            f"a file name below {folder}", repr(name), "Choose a name such as alice or people/alice."
        )
    return path
