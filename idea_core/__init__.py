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

from . import quiet  # isort: split  # before anything that imports what it keeps quiet
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
from .version import __version__

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
