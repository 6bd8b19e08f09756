"""The formats of this pack's own files: a file says its format and version, and is refused before a tensor is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..errors import IdentityFileError
from .tensorfile import read_tensors

Metadata = dict[str, str]
_UPDATE = "Update ID-EA: a newer version wrote this file."


@dataclass(frozen=True)
class FileFormat:
    """One kind of safetensors file.

    Attributes:
        name, version: `format` and `format_version` in the metadata.
        remedy: what to do with a file of another kind, or with a damaged or outdated one; a whole sentence.
        upgrades: older version → its metadata under the present keys.
    """

    name: str
    version: str
    remedy: str
    upgrades: Mapping[str, Callable[[Metadata], Metadata]] = field(default_factory=dict)

    def metadata(self, values: Mapping[str, str]) -> Metadata:
        """A file's metadata: format, version, and `values`."""
        return {"format": self.name, "format_version": self.version, **values}

    @contextmanager
    def reading(self, path: str | os.PathLike) -> Iterator[tuple[dict[str, Tensor], Metadata]]:
        """Tensors and metadata of a file, the latter under the present version's keys.

        What goes wrong inside the `with` block is the file's fault: a missing key or a malformed value becomes an
        error that names the file.

        Raises:
            IdentityFileError: another format or version, or a damaged file.
            FileNotFoundError: no such file.
        """
        name = Path(path).name
        try:
            tensors, metadata = read_tensors(path, self._require)
            upgrade = self.upgrades.get(metadata["format_version"])
            yield tensors, upgrade(metadata) if upgrade else metadata
        except KeyError as error:
            raise IdentityFileError(f"an entry {error}", f"none in {name}", self.remedy) from None
        except ValueError as error:
            raise IdentityFileError("metadata values of the right kind", f"{error} in {name}", self.remedy) from None
        except IdentityFileError as error:
            raise IdentityFileError(error.expected, f"{error.got} in {name}", error.remedy) from None

    def _require(self, metadata: Mapping[str, str]) -> None:
        if metadata.get("format") != self.name:
            raise IdentityFileError(f"a file of format {self.name}", f"format {metadata.get('format')}", self.remedy)
        version = metadata.get("format_version", "none")
        if version != self.version and version not in self.upgrades:
            newer = version.isdecimal() and int(version) > int(self.version)
            raise IdentityFileError(f"format version {self.version}", version, _UPDATE if newer else self.remedy)
