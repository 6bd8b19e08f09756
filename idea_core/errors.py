"""The pack's exceptions. Each says what was expected, what was given, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class IdeaError(Exception):
    """Base of every error that a user can cause and fix.

    Args:
        expected: what was expected, as a noun phrase.
        got: what was given instead, as a noun phrase.
        remedy: what to do now, as a whole sentence.
    """

    __module__ = "id_ea"  # ComfyUI shows it before the sentence; the real name would begin with the pack's folder

    def __init__(self, expected: str, got: str, remedy: str):
        super().__init__(f"Expected {expected}, got {got}. {remedy}")
        self.expected, self.got, self.remedy = expected, got, remedy

    def __init_subclass__(cls):
        cls.__module__ = IdeaError.__module__

    def __reduce__(self):
        return _unpickle, (type(self).__name__, self.expected, self.got, self.remedy)  # between processes


class ShapeError(IdeaError):
    """A tensor has the wrong shape."""


class ConfigError(IdeaError):
    """A setting is outside its range."""


class BaseModelError(IdeaError):
    """A checkpoint, text encoder or identity does not fit the others."""


class IdentityFileError(IdeaError):
    """A file is no identity, or is damaged."""


class TrainingError(IdeaError):
    """Training could not start, or its values are not finite."""


class DivergedError(TrainingError):
    """The losses or weights of a training diverged."""


class FaceError(IdeaError):
    """A photo has no pixels or no face, or a face model is incomplete."""


class SocketError(IdeaError):
    """A socket of the same name gave another pack's object."""


class MissingPackageError(IdeaError):
    """An optional package is needed and not installed."""


def _unpickle(kind: str, *arguments: str) -> IdeaError:
    """An error from another process. Pickle cannot name its class, because `__module__` is not a real one."""
    return globals()[kind](*arguments)


def require_shape(name: str, tensor: Tensor, *shape: int | str) -> None:
    """Raise `ShapeError` unless `tensor` has `shape`; a letter stands for any size.

    >>> require_shape("context", context, "B", "L", 768)
    """
    fits = tensor.ndim == len(shape) and all(
        isinstance(want, str) or want == have for want, have in zip(shape, tensor.shape)
    )
    if not fits:
        wanted = ", ".join(map(str, shape))
        raise ShapeError(f"{name} of shape ({wanted})", f"{tuple(tensor.shape)}", "Pass a tensor of that shape.")


def first_line(error: BaseException) -> str:
    """What a log says of an error of another package: its first line, or its kind where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__
