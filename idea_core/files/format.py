"""The formats of this pack's own files: a file says its format and version, and is refused before a tensor is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import IdentityFileError
from .tensorfile import read_tensors
from .textfile import parse_json

Metadata = dict[str, str]
Upgrade = Callable[[Metadata], Metadata]
_UPDATE = "Update ID-EA: a newer version wrote this file."
_METADATA = {"n": "num_tokens", "d": "cross_attention_dim"}
_TRAINING = {
    "n": "num_tokens",
    "axes_rate": "axes_lr",
    "token_rate": "token_lr",
    "adapter_rate": "adapter_lr",
    "enhancer_rate": "enhancer_lr",
    "kv_rate": "kv_lr",
    "gate": "gate_init",
    "flip": "flip_p",
    "likeness_pictures": "likeness_images",
    "averaged": "swa_fraction",
    "epsilon": "adam_epsilon",
    "rate": "lr",
    "text_rate": "text_lr",
    "likeness_rate": "likeness_lr",
    "snr": "snr_gamma",
    "noisiest": "snr_scale",
    "pictures": "num_images",
}
_REFINE = {"rate": "step_size", "at_once": "sampling_batch_size", "pictures": "num_images"}


@dataclass(frozen=True)
class FileFormat:
    """One kind of safetensors file.

    Attributes:
        name, version: `format` and `format_version` in the metadata.
        remedy: what to do with a file of another kind, or with a damaged or outdated one; a whole sentence.
        upgrades: older version that is read too → what its metadata go through to be the present version's.
    """

    name: str
    version: str
    remedy: str
    upgrades: Mapping[str, Sequence[Upgrade]] = field(default_factory=dict)

    def metadata(self, values: Mapping[str, str]) -> Metadata:
        """A file's metadata: format, version, and `values`."""
        return {"format": self.name, "format_version": self.version, **values}

    @contextmanager
    def reading(self, path: str | os.PathLike) -> Iterator[tuple[dict[str, Tensor], Metadata]]:
        """Tensors and metadata of a file, the latter under the present version's keys.

        A missing key or a malformed value inside the `with` block is the file's fault: its error names the file.

        Raises:
            IdentityFileError: another format or version, or a damaged file.
            FileNotFoundError: no such file.
        """
        name = Path(path).name
        try:
            tensors, metadata = read_tensors(path, self._require)
            for upgrade in self.upgrades.get(metadata["format_version"], ()):
                metadata = upgrade(metadata)
            yield tensors, metadata
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
        if version not in (self.version, *self.upgrades):
            newer = version.isdecimal() and int(version) > int(self.version)
            raise IdentityFileError(f"format version {self.version}", version, _UPDATE if newer else self.remedy)


def renamed(metadata: Metadata) -> Metadata:
    """An upgrade: metadata and settings under their present names; KeyError or ValueError where they are damaged."""
    training = parse_json(metadata["training"])
    if isinstance(training, dict):
        training = _renamed(training, _TRAINING)
        if isinstance(training.get("refine"), dict):
            training["refine"] = _renamed(training["refine"], _REFINE)
    return _renamed(metadata, _METADATA) | {"training": json.dumps(training, sort_keys=True)}


def sized(metadata: Metadata) -> Metadata:
    """An upgrade: an Adapter as wide as the text condition, K/V deltas that act on all text."""
    return {"adapter_width": "", "kv_scope": "whole", **metadata}


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}
