"""The `idea` command."""

from .main import idea

__all__ = ["idea"]
