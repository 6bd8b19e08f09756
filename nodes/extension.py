"""The list of nodes. A node_id is never renamed: shared workflows hold it."""

from __future__ import annotations

from comfy_api.v0_0_2 import ComfyExtension, io

from .across import SaveEnhancer, TrainAcross
from .apply import ApplyAdapter
from .compare import BlendIDEmbeds, IDSimilarity
from .edit import BlendIdentities, EditIdentity
from .enhancer import InstantIdentity, LoadEnhancer
from .face import IDEncode, LoadFaceModel
from .identity import IdentityInfo, LoadIdentity, SaveIdentity
from .paths import register_folders
from .refine import RefinedIdentity
from .settings import TrainingSettingsNode
from .train import EnhancerTrain


class IdeaExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadFaceModel,
            IDEncode,
            BlendIDEmbeds,
            IDSimilarity,
            EnhancerTrain,
            TrainingSettingsNode,
            TrainAcross,
            SaveEnhancer,
            LoadEnhancer,
            InstantIdentity,
            RefinedIdentity,
            SaveIdentity,
            LoadIdentity,
            IdentityInfo,
            BlendIdentities,
            EditIdentity,
            ApplyAdapter,
        ]


async def comfy_entrypoint() -> IdeaExtension:
    register_folders()
    return IdeaExtension()
