"""The pack's own exceptions. Each says what was expected, what came, and what to do."""

from __future__ import annotations


class IdeaError(Exception):
    """Base of every error that a user can cause and mend.

    Args:
        expected: what would have been right, as a noun phrase.
        got: what came instead, as a noun phrase.
        remedy: what to do now, as a whole sentence.
    """

    __module__ = "id_ea"  # ComfyUI shows it before the sentence; the real one begins there with the pack's folder

    def __init__(self, expected: str, got: str, remedy: str):
        super().__init__(f"Expected {expected}, got {got}. {remedy}")
        self.expected, self.got, self.remedy = expected, got, remedy

    def __init_subclass__(cls):
        cls.__module__ = IdeaError.__module__

    def __reduce__(self):
        return _again, (type(self).__name__, self.expected, self.got, self.remedy)  # between processes


class ShapeError(IdeaError):
    """A tensor of the wrong shape reached the method's maths."""


class ConfigError(IdeaError):
    """A setting is outside its range."""


class BaseModelError(IdeaError):
    """A checkpoint, text encoder or identity that does not fit the others."""


class IdentityFileError(IdeaError):
    """A file that is no identity, or a damaged one."""


class TrainingError(IdeaError):
    """Training could not start or did not stay finite."""


class DivergedError(TrainingError):
    """A training whose losses or weights are no longer of use."""


class FaceError(IdeaError):
    """A photo without pixels or without a face, or an incomplete face model."""


class SocketError(IdeaError):
    """Another pack's object came through a socket of the same name."""


class MissingPackageError(IdeaError):
    """An optional package is needed for what was asked."""


def _again(kind: str, *said: str) -> IdeaError:
    """An error from another process; pickles cannot name its class, whose module is not a real one."""
    return globals()[kind](*said)
