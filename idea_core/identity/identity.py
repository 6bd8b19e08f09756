"""A person's file: what has to be applied to put the person into a picture, in one safetensors file.

Top-level token keys (`clip_l`, `clip_h`, `clip_g`) are those of ComfyUI's `embedding:file`, and K/V
keys those of its LoRA loader, so stock nodes read the parts that they know.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import IdentityFileError
from ..families import BASE_MODELS, BaseModel
from ..files.tensorfile import read_tensors, tensor_bytes, write_tensors
from ..files.textfile import parse_json
from ..method.adapter import GatedAttention
from ..method.enhancer import ARCFACE_WIDTH
from .checks import file_error, kv_shapes, require_finite, require_name, require_settings, require_shapes
from .thumbnail import KEY, decode_thumbnail, readable_thumbnail

FORMAT, FORMAT_VERSION = "id-ea", "1"
_ADAPTER = "adapter."
_SINGLE = ("anchor", "grounding", "id_embeds")


@dataclass(frozen=True, eq=False, repr=False)
class Identity:
    """One person, trained for one base model. Frozen; checked when made.

    Attributes:
        name: trigger name; prompts say `<name>`.
        base_model: key in `BASE_MODELS`.
        prediction: what the base checkpoint predicts, "eps" or "v".
        clip_layer: text encoder layer of the training, counted from the end; None: the model's own.
        heads, beta: of the Adapter.
        tokens: text encoder → pseudo-tokens `v` (n, d_enc).
        anchor: `A` (n, d); None if unknown.
        grounding: `fuse(F)` (n, d), what the Adapter sees of this person; None for plain Textual Inversion.
        adapter: state dict of its `GatedAttention`; empty for plain Textual Inversion.
        id_embeds: `a` (512,), the face embedding; None if it was left out.
        kv: state dict of `KVDeltas`; empty where none were trained.
        base_checkpoint: file name of the base checkpoint; "" if unknown.
        base_hash: SHA-256 of that file; "" if unknown.
        training: settings and results of the training, JSON values.
        thumbnail: a picture of the person, as `encode_thumbnail` makes it; "" for none.

    Raises:
        IdentityFileError: a part is missing, foreign, misshapen or not finite.
    """

    name: str
    base_model: str
    prediction: str
    clip_layer: int | None
    heads: int
    beta: float
    tokens: Mapping[str, Tensor]
    anchor: Tensor | None = None
    grounding: Tensor | None = None
    adapter: Mapping[str, Tensor] = field(default_factory=dict)
    id_embeds: Tensor | None = None
    kv: Mapping[str, Tensor] = field(default_factory=dict)
    base_checkpoint: str = ""
    base_hash: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: str = ""

    def __post_init__(self):
        object.__setattr__(self, "name", require_name(self.name))
        require_settings(self, file_error)
        if self.thumbnail:
            decode_thumbnail(self.thumbnail)
        if self.has_adapter != bool(self.adapter):
            raise file_error("grounding and adapter, or neither", "one of them")
        tensors = self.tensors()
        require_shapes(tensors, self._shapes() | kv_shapes(self.kv, self.base.width))
        require_finite(tensors)

    def __repr__(self) -> str:  # without tensors: it stands in the error reports that users send to others
        return f"Identity(name={self.name!r}, base_model={self.base_model!r})"

    @property
    def trigger(self) -> str:
        """What a prompt says for this person."""
        return f"<{self.name}>"

    @property
    def base(self) -> BaseModel:
        return BASE_MODELS[self.base_model]

    @property
    def text_layer(self) -> int:
        """The text encoder layer of the training, counted from the end."""
        return self.base.text_layer(self.clip_layer)

    @property
    def num_tokens(self) -> int:
        """Number of pseudo-tokens."""
        return next(iter(self.tokens.values())).shape[0]

    @property
    def has_adapter(self) -> bool:
        """Whether the person has an Adapter; plain Textual Inversion has none."""
        return self.grounding is not None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under their keys in the file."""
        single = {key: getattr(self, key) for key in _SINGLE if getattr(self, key) is not None}
        adapter = {_ADAPTER + key: tensor for key, tensor in self.adapter.items()}
        return {**self.tokens, **single, **adapter, **self.kv}

    def metadata(self) -> dict[str, str]:
        """The file's metadata; every value is a string."""
        return ({KEY: self.thumbnail} if self.thumbnail else {}) | {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "base_model": self.base_model,
            "prediction": self.prediction,
            "clip_layer": "" if self.clip_layer is None else str(self.clip_layer),
            "n": str(self.num_tokens),
            "d": str(self.base.width),
            "heads": str(self.heads),
            "beta": repr(self.beta),
            "base_checkpoint": self.base_checkpoint,
            "base_hash": self.base_hash,
            "training": json.dumps(self.training, sort_keys=True),
        }

    def build_adapter(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> GatedAttention:
        """The Adapter with this person's weights, frozen."""
        with torch.device("meta"):
            adapter = GatedAttention(self.base.width, self.heads, self.beta)
        weights = {key: tensor.to(device, dtype) for key, tensor in self.adapter.items()}
        adapter.load_state_dict(weights, assign=True)
        return adapter.requires_grad_(False).eval()

    def digest(self) -> str:
        """SHA-256 of all tensors, hexadecimal; equal persons have equal digests whatever their files are called."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self.tensors().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    def to(self, dtype: torch.dtype | None) -> Identity:
        """The same person on the CPU, in another precision or, for None, in its own."""

        def cast(part: Tensor | Mapping[str, Tensor] | None) -> Any:
            if isinstance(part, Mapping):
                return {key: cast(tensor) for key, tensor in part.items()}
            return None if part is None else part.detach().to("cpu", dtype or part.dtype).contiguous()

        parts = ("tokens", "anchor", "grounding", "id_embeds", "adapter", "kv")
        return dataclasses.replace(self, **{part: cast(getattr(self, part)) for part in parts})

    def save(self, path: str | os.PathLike, dtype: torch.dtype | None = torch.float16) -> Path:
        """Write the file, in half precision by default (None: as it is); an existing one is replaced in one move.

        Equal identities give equal bytes. Raises OSError, with any existing file left whole.
        """
        identity = self.to(dtype)
        return write_tensors(path, identity.tensors(), identity.metadata())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Identity:
        """Read and check a file; nothing of it is used before every check has passed.

        Raises:
            IdentityFileError: not an identity, of another format version, or damaged.
            FileNotFoundError: no such file.
        """
        try:
            tensors, metadata = read_tensors(path, _require_format)
            return cls._from_file(tensors, metadata)
        except IdentityFileError as error:
            raise IdentityFileError(error.expected, f"{error.got} in {Path(path).name}", error.remedy) from None

    @classmethod
    def _from_file(cls, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> Identity:
        base = BASE_MODELS.get(metadata.get("base_model", ""))
        encoders = base.encoders if base else ()
        try:
            identity = cls(
                name=metadata["name"],
                base_model=metadata["base_model"],
                prediction=metadata["prediction"],
                clip_layer=int(metadata["clip_layer"]) if metadata["clip_layer"] else None,
                heads=int(metadata["heads"]),
                beta=float(metadata["beta"]),
                tokens={encoder: tensors.pop(encoder) for encoder in encoders},
                **{key: tensors.pop(key, None) for key in _SINGLE},
                adapter={k.removeprefix(_ADAPTER): tensors.pop(k) for k in list(tensors) if k.startswith(_ADAPTER)},
                kv=tensors,
                base_checkpoint=metadata["base_checkpoint"],
                base_hash=metadata["base_hash"],
                training=parse_json(metadata["training"]),
                thumbnail=readable_thumbnail(metadata.get(KEY, "")),
            )
        except KeyError as error:
            raise file_error(f"an entry {error}", "none") from None
        except ValueError as error:
            raise file_error("metadata values of the right kind", str(error)) from None
        said = metadata.get("n"), metadata.get("d")
        if said != (str(identity.num_tokens), str(identity.base.width)):
            raise file_error(
                f"metadata n = {identity.num_tokens}, d = {identity.base.width}", ", ".join(map(str, said))
            )
        return identity

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        first, d = next(iter(self.tokens.values()), torch.empty(0)), self.base.width
        n = first.shape[0] if first.ndim == 2 else 0
        if n < 1:
            raise file_error("pseudo-tokens of shape (n, d_enc)", str(tuple(first.shape)))
        single = {"anchor": (n, d), "grounding": (n, d), "id_embeds": (ARCFACE_WIDTH,)}
        shapes = {encoder: (n, width) for encoder, width in self.base.encoders.items()}
        shapes |= {key: shape for key, shape in single.items() if getattr(self, key) is not None}
        if self.has_adapter:
            with torch.device("meta"):
                adapter = GatedAttention(d, self.heads).state_dict()
            shapes |= {_ADAPTER + key: tuple(tensor.shape) for key, tensor in adapter.items()}
        return shapes


def _require_format(metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise file_error(f"a file of format {FORMAT}", f"format {metadata.get('format')}")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise IdentityFileError(
            f"format version {FORMAT_VERSION}", str(metadata.get("format_version")), "Update ID-EA, or train again."
        )
