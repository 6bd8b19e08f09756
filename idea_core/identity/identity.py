"""A person's file: all parts that put the person into an image, in one safetensors file.

Top-level token keys (`clip_l`, `clip_h`, `clip_g`) are those of ComfyUI's `embedding:file`, and K/V keys those of its
LoRA loader, so stock nodes read the parts that they know.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.backbone import KV_SCOPES
from ..files.format import FileFormat, renamed, sized
from ..files.tensorfile import write_tensors
from ..method.modules import ARCFACE_WIDTH, GatedAttention
from .base_ref import BaseModelRef, MadeForBase
from .checks import REMEDY, file_error, kv_shapes, require_finite, require_name, require_shapes
from .thumbnail import KEY, decode_thumbnail, readable_thumbnail

FORMAT = FileFormat("id-ea", "3", REMEDY, {"1": (renamed, sized), "2": (sized,)})
_ADAPTER = "adapter."
_SINGLE = ("rows", "anchor", "grounding", "id_embeds")


@dataclass(frozen=True, eq=False, repr=False)
class Identity(MadeForBase):
    """One person, trained for one base model. Frozen; checked when made.

    Attributes:
        name: trigger name; prompts say `<name>`.
        base_ref: the base model of the training, and the Adapter's shape.
        tokens: text encoder → pseudo-tokens `v` (n, d_enc), or what it reads in place of `rows`.
        rows: the person's own rows (n, d) of the text condition; None: the text encoders give them.
        anchor: `A` (n, d); None if unknown.
        grounding: `fuse(F)` (n, w), what the Adapter sees of this person; None for plain Textual Inversion.
        adapter: state dict of its `GatedAttention`; empty for plain Textual Inversion.
        id_embeds: `a` (512,), the face embedding; None if it was left out.
        kv: state dict of `KVDeltas`; empty where none were trained.
        kv_scope: where they act, one of `KV_SCOPES`.
        training: settings and results of the training, JSON values.
        thumbnail: an image of the person, from `encode_thumbnail`; "" for none.

    Raises:
        IdentityFileError: a part is missing, foreign, misshapen or not finite.
    """

    name: str
    base_ref: BaseModelRef
    tokens: Mapping[str, Tensor]
    rows: Tensor | None = None
    anchor: Tensor | None = None
    grounding: Tensor | None = None
    adapter: Mapping[str, Tensor] = field(default_factory=dict)
    id_embeds: Tensor | None = None
    kv: Mapping[str, Tensor] = field(default_factory=dict)
    kv_scope: str = "whole"
    training: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", require_name(self.name))
        if self.thumbnail:
            decode_thumbnail(self.thumbnail)
        if self.kv_scope not in KV_SCOPES or (self.base.transformer is None and self.kv_scope != "whole"):
            raise file_error("kv_scope of the base model", repr(self.kv_scope))
        if self.rows is not None and self.base.transformer is None:
            raise file_error(f"no rows for {self.base.title}", "some")
        if self.has_adapter != bool(self.adapter):
            raise file_error("grounding and adapter, or neither", "one of them")
        tensors = self.tensors()
        require_shapes(tensors, self._shapes() | kv_shapes(self.kv, self.base))
        require_finite(tensors)

    def __repr__(self) -> str:  # without tensors: it stands in the error reports that users send to others
        return f"Identity(name={self.name!r}, base_model={self.base_model!r})"

    @property
    def trigger(self) -> str:
        """The person's name in prompts."""
        return f"<{self.name}>"

    @property
    def num_tokens(self) -> int:
        """Number of pseudo-tokens."""
        return next(iter(self.tokens.values())).shape[0]

    @property
    def has_rows(self) -> bool:
        """Whether the person's pseudo-tokens stand in the text encoders' output."""
        return self.rows is not None

    @property
    def has_adapter(self) -> bool:
        """Whether the person has an Adapter; plain Textual Inversion has none."""
        return self.grounding is not None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under their keys in the file.

        Text encoders that read prompts without the person have no rows. ComfyUI's `embedding:file` would otherwise take
        the file's first tensor for them.
        """
        dtype = next(iter(self.tokens.values()), torch.empty(0)).dtype
        plain = {key: torch.zeros(0, width, dtype=dtype) for key, width in self.base.plain_encoders.items()}
        single = {key: getattr(self, key) for key in _SINGLE if getattr(self, key) is not None}
        adapter = {_ADAPTER + key: tensor for key, tensor in self.adapter.items()}
        return {**self.tokens, **plain, **single, **adapter, **self.kv}

    def metadata(self) -> dict[str, str]:
        """The file's metadata; every value is a string."""
        thumbnail = {KEY: self.thumbnail} if self.thumbnail else {}
        shape = {"num_tokens": str(self.num_tokens), "cross_attention_dim": str(self.base.width)}
        return FORMAT.metadata({"name": self.name, **self.header(), **shape, "kv_scope": self.kv_scope, **thumbnail})

    def build_adapter(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> GatedAttention:
        """The Adapter with this person's weights, frozen."""
        with torch.device("meta"):
            adapter = self._empty_adapter()
        weights = {key: tensor.to(device, dtype) for key, tensor in self.adapter.items()}
        adapter.load_state_dict(weights, assign=True)
        return adapter.requires_grad_(False).eval()

    def to(self, dtype: torch.dtype | None) -> Identity:
        """The same person on the CPU, in another precision or, for None, in its own."""

        def cast(part: Tensor | Mapping[str, Tensor] | None) -> Any:
            if isinstance(part, Mapping):
                return {key: cast(tensor) for key, tensor in part.items()}
            return None if part is None else part.detach().to("cpu", dtype or part.dtype).contiguous()

        parts = ("tokens", *_SINGLE, "adapter", "kv")
        return dataclasses.replace(self, **{part: cast(getattr(self, part)) for part in parts})

    def save(self, path: str | os.PathLike, dtype: torch.dtype | None = torch.float16) -> Path:
        """Write the file, in half precision by default (None: as it is); an existing one is replaced in one move.

        Equal identities give equal bytes. Raises OSError, with any existing file left whole.
        """
        identity = self.to(dtype)
        return write_tensors(path, identity.tensors(), identity.metadata())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Identity:
        """Read a file and check all of it (errors: `FileFormat.reading`)."""
        with FORMAT.reading(path) as (tensors, metadata):
            header = cls.read_header(metadata)
            for encoder in header["base_ref"].base.plain_encoders:
                tensors.pop(encoder, None)
            identity = cls(
                name=metadata["name"],
                tokens={encoder: tensors.pop(encoder) for encoder in header["base_ref"].base.encoders},
                rows=tensors.pop("rows", None),
                anchor=tensors.pop("anchor", None),
                grounding=tensors.pop("grounding", None),
                id_embeds=tensors.pop("id_embeds", None),
                adapter={k.removeprefix(_ADAPTER): tensors.pop(k) for k in list(tensors) if k.startswith(_ADAPTER)},
                kv=tensors,
                kv_scope=metadata["kv_scope"],
                thumbnail=readable_thumbnail(metadata.get(KEY, "")),
                **header,
            )
            n, d = identity.num_tokens, identity.base.width
            shape = metadata["num_tokens"], metadata["cross_attention_dim"]
            if shape != (str(n), str(d)):
                raise file_error(f"metadata num_tokens = {n}, cross_attention_dim = {d}", ", ".join(shape))
            return identity

    def _empty_adapter(self) -> GatedAttention:
        ref = self.base_ref
        return GatedAttention(self.base.width, ref.heads, ref.beta, ref.width)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        first, d = next(iter(self.tokens.values()), torch.empty(0)), self.base.width
        n = first.shape[0] if first.ndim == 2 else 0
        if n < 1:
            raise file_error("pseudo-tokens of shape (n, d_enc)", str(tuple(first.shape)))
        width = self.base_ref.width
        single = {"rows": (n, d), "anchor": (n, d), "grounding": (n, width), "id_embeds": (ARCFACE_WIDTH,)}
        shapes: dict[str, tuple[int, ...]] = {key: (n, width) for key, width in self.base.encoders.items()}
        shapes |= {key: (0, width) for key, width in self.base.plain_encoders.items()}
        shapes |= {key: shape for key, shape in single.items() if getattr(self, key) is not None}
        if self.has_adapter:
            with torch.device("meta"):
                adapter = self._empty_adapter().state_dict()
            shapes |= {_ADAPTER + key: tuple(tensor.shape) for key, tensor in adapter.items()}
        return shapes
