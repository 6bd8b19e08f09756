"""One check for tensor shapes, with an error that names both."""

from __future__ import annotations

from torch import Tensor

from .errors import ShapeError


def require_shape(name: str, tensor: Tensor, *shape: int | str) -> None:
    """Raise `ShapeError` unless `tensor` has `shape`; a letter stands for any size.

    >>> require_shape("context", context, "B", "L", 768)
    """
    fits = tensor.ndim == len(shape) and all(
        isinstance(want, str) or want == have for want, have in zip(shape, tensor.shape)
    )
    if not fits:
        wanted = ", ".join(str(s) for s in shape)
        raise ShapeError(f"{name} of shape ({wanted})", f"{tuple(tensor.shape)}", "Pass a tensor of that shape.")
