"""The folders that the pack reads and writes, in ComfyUI's terms."""

from __future__ import annotations

import re
from pathlib import Path

import folder_paths

from ...idea_core.errors import IdentityFileError
from ...idea_core.text.names import as_on_disk, is_name, is_name_character, one_form

IDENTITIES = "idea"
"""ComfyUI's folder name for identities: `models/idea` and `output/idea`."""
ENHANCERS = "enhancers"
"""Folder below those, with ID-Enhancers."""
ENHANCER_FILES = "idea_enhancers"
INSIGHTFACE = "insightface"
AUTOSAVE = "autosave"
EXTENSION = ".safetensors"
_LONGEST = 100
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names of devices on Windows


def register_folders() -> None:
    """Make ComfyUI search for identities and face models; extra_model_paths.yaml may add more places."""
    models = Path(folder_paths.models_dir)
    own = output_folder(), models / IDENTITIES
    for folder in own:
        folder_paths.add_model_folder_path(IDENTITIES, str(folder))
        folder_paths.add_model_folder_path(ENHANCER_FILES, str(folder / ENHANCERS))
    for kind in (IDENTITIES, ENHANCER_FILES):
        paths, _ = folder_paths.folder_names_and_paths[kind]
        saved = [path for path in paths if Path(path).is_relative_to(output_folder())]
        paths[:] = [*saved, *(path for path in paths if path not in saved)]  # what was just saved is loaded
        folder_paths.folder_names_and_paths[kind] = (paths, {EXTENSION})
    folder_paths.add_model_folder_path(INSIGHTFACE, str(models / INSIGHTFACE))


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / IDENTITIES


def people_folder() -> Path:
    """Where pictures of people lie from whom an ID-Enhancer learns."""
    return Path(folder_paths.get_output_directory()) / f"{IDENTITIES}-people"


def insightface_roots() -> list[Path]:
    return [Path(path) for path in folder_paths.get_folder_paths(INSIGHTFACE)]


def identity_files() -> list[str]:
    return [name for name in _files(IDENTITIES) if Path(name).parts[0] != ENHANCERS]


def identity_path(name: str) -> Path:
    """Path of a file that `identity_files` lists."""
    return _listed(IDENTITIES, "an identity", name)


def enhancer_files() -> list[str]:
    return _files(ENHANCER_FILES)


def enhancer_path(name: str) -> Path:
    """Path of a file that `enhancer_files` lists."""
    return _listed(ENHANCER_FILES, "an ID-Enhancer", name)


def file_state(path: Path) -> str:
    """What changes when a file is replaced."""
    status = path.stat()
    return f"{path} {status.st_mtime_ns} {status.st_size}"


def known_file(kind: str, name: str | None) -> bool | str:
    """For `validate_inputs`: True where a file is there, however its name is spelled on disk; else what is wrong.

    Args:
        name: None where the name is another node's output, and not known yet.
    """
    if name is None or one_form(name) in _files(kind):
        return True
    return f"Value not in list: {name!r} is not in {_files(kind)}. Refresh the list and choose again."


def _files(kind: str) -> list[str]:
    """Files' names, in one normal form however they are spelled on disk."""
    return list(dict.fromkeys(map(one_form, folder_paths.get_filename_list(kind))))


def _listed(kind: str, title: str, name: str) -> Path:
    spellings = {one_form(file): file for file in folder_paths.get_filename_list(kind)}
    path = folder_paths.get_full_path(kind, spellings.get(one_form(name), name))
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(kind))
        raise IdentityFileError(f"{title} {name!r} in {folders}", "none", "Refresh the list and choose again.")
    return Path(path)


def saved_path(name: str) -> Path:
    """Where an identity called `name` (subfolders allowed) is written; never outside the output folder."""
    parts = re.split(r"[/\\]", one_form(name).removesuffix(EXTENSION))
    if not all(map(_is_file_name, parts)):
        raise IdentityFileError(
            "a file name of letters, digits, _, -, dots and spaces", repr(name), "Choose one such as people/alice."
        )
    return as_on_disk(output_folder().joinpath(*parts).with_name(parts[-1] + EXTENSION))


def _is_file_name(part: str) -> bool:
    """Whether it may be a file's or folder's name everywhere: what people's names may have, blanks and dots between."""
    signs = part.replace(" ", "").replace(".", "")
    ends = is_name(part[:1]) and part[-1] not in " ."
    return ends and len(part) <= _LONGEST and all(map(is_name_character, signs)) and not _RESERVED.fullmatch(part)
