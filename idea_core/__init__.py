"""ID-EA (arXiv 2507.11990) in plain torch: the method, without any front end.

One legend of symbols, used throughout:

====== ==================== =====================================================
symbol shape                meaning
====== ==================== =====================================================
B                           batch
L                           text tokens; CLIP's are a multiple of 77
n                           pseudo-tokens per identity
d                           width of the text condition: 768, 1024 or 2048 for Stable Diffusion
w                           width of Enhancer and Adapter: d, or less for transformers
d_enc                       width of one text encoder's token embeddings
a      (512,)               ArcFace identity embedding, L2-normalised
A      (n, d)               textual ID anchor
v      (n, d_enc)           the identity's input token embeddings, per encoder
F      (n, 2w)              enhanced identity embedding, "fused"
g      (n, w)               what the Adapter sees of it, "grounding"
y      (B, L, d)            text condition
====== ==================== =====================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import quiet
from .version import __version__

if TYPE_CHECKING:
    from .diffusion.backbone import Backbone, TextCondition
    from .errors import IdeaError
    from .families import BASE_MODELS, BaseModel
    from .identity.base_ref import BaseModelRef
    from .identity.identity import Identity
    from .method.anchor import celebrity_names, cross_initialise
    from .method.losses import mahalanobis
    from .method.modules import Adapter, Enhancer, GatedAttention
    from .training.config import TrainConfig
    from .training.job import PersonSpec, train_person
    from .training.output import Output
    from .training.trainer import Trainer

__all__ = [
    "BASE_MODELS",
    "Adapter",
    "Backbone",
    "BaseModel",
    "BaseModelRef",
    "Enhancer",
    "GatedAttention",
    "IdeaError",
    "Identity",
    "Output",
    "PersonSpec",
    "TextCondition",
    "TrainConfig",
    "Trainer",
    "__version__",
    "celebrity_names",
    "cross_initialise",
    "mahalanobis",
    "quiet",
    "train_person",
]

_MODULES = {
    "diffusion.backbone": ("Backbone", "TextCondition"),
    "errors": ("IdeaError",),
    "families": ("BASE_MODELS", "BaseModel"),
    "identity.base_ref": ("BaseModelRef",),
    "identity.identity": ("Identity",),
    "method.anchor": ("celebrity_names", "cross_initialise"),
    "method.losses": ("mahalanobis",),
    "method.modules": ("Adapter", "Enhancer", "GatedAttention"),
    "training.config": ("TrainConfig",),
    "training.job": ("PersonSpec", "train_person"),
    "training.output": ("Output",),
    "training.trainer": ("Trainer",),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: torch, which takes seconds, is not needed for `idea --help`."""
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
