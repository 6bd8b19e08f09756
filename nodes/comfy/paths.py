"""The pack's folders and files, by ComfyUI's folder names."""

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
_TITLES = {IDENTITIES: "an identity", ENHANCER_FILES: "an ID-Enhancer"}
_REMEDIES = {
    IDENTITIES: "Train the person with ID-Enhancer Train and save it with Save ID-EA Embedding",
    ENHANCER_FILES: "Train one with ID-Enhancer Train Across People and save it with Save ID-Enhancer",
}
_NAMED = 5  # files in an error text
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
        paths[:] = [*saved, *(path for path in paths if path not in saved)]  # a file that was just saved is found first
        folder_paths.folder_names_and_paths[kind] = (paths, {EXTENSION})
    folder_paths.add_model_folder_path(INSIGHTFACE, str(models / INSIGHTFACE))


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / IDENTITIES


def people_folder() -> Path:
    """Folder of the people's images that train an ID-Enhancer."""
    return Path(folder_paths.get_output_directory()) / f"{IDENTITIES}-people"


def insightface_roots() -> list[Path]:
    return [Path(path) for path in folder_paths.get_folder_paths(INSIGHTFACE)]


def listed_files(kind: str) -> list[str]:
    """Names of the files of a kind, in one Unicode form."""
    return list(dict.fromkeys(map(one_form, folder_paths.get_filename_list(kind))))


def identity_files() -> list[str]:
    """Names of people's files; what a training saved by itself comes last."""
    names = [name for name in listed_files(IDENTITIES) if Path(name).parts[0] != ENHANCERS]
    return sorted(names, key=lambda name: Path(name).parts[0] == AUTOSAVE)


def listed_path(kind: str, name: str) -> Path:
    """Path of a file that `listed_files` names; IdentityFileError says which files there are, and how to get one."""
    spellings = {one_form(file): file for file in folder_paths.get_filename_list(kind)}
    path = folder_paths.get_full_path(kind, spellings.get(one_form(name), name))
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(kind))
        known = identity_files() if kind == IDENTITIES else listed_files(kind)
        more = ["…"] if len(known) > _NAMED else []
        raise IdentityFileError(
            f"{_TITLES[kind]} {name!r} in {folders}",
            ", ".join([*known[:_NAMED], *more]) or "no file",
            f"{_REMEDIES[kind]}, or put its file there. Then refresh the list (R) and choose it.",
        )
    return Path(path)


def listed_state(kind: str, name: str) -> str:
    """`file_state` of a listed file; "" if it is missing, so that the node runs and says so."""
    try:
        return file_state(listed_path(kind, name))
    except IdentityFileError:
        return ""


def shown_path(path: Path) -> str:
    """A path in the output folder as users know it, such as "output/idea/alice.safetensors"."""
    return path.relative_to(output_folder().parents[1]).as_posix()


def file_state(path: Path) -> str:
    """Path, time and size of a file: another text when the file is replaced."""
    status = path.stat()
    return f"{path} {status.st_mtime_ns} {status.st_size}"


def saved_path(name: str) -> Path:
    """Path in the output folder for an identity called `name`; subfolders are allowed."""
    parts = re.split(r"[/\\]", one_form(name).removesuffix(EXTENSION))
    if not all(map(_is_file_name, parts)):
        raise IdentityFileError(
            "a file name of letters, digits, _, -, dots and spaces", repr(name), "Choose one such as people/alice."
        )
    return as_on_disk(output_folder().joinpath(*parts).with_name(parts[-1] + EXTENSION))


def _is_file_name(part: str) -> bool:
    """Whether it may name a file or folder on every system: a person's name, with blanks and dots between."""
    if not is_name(part[:1]) or part[-1] in " ." or len(part) > _LONGEST or _RESERVED.fullmatch(part):
        return False
    return all(map(is_name_character, part.replace(" ", "").replace(".", "")))
