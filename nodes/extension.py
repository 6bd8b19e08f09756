"""The list of nodes. A node_id is never renamed: shared workflows hold it."""

from __future__ import annotations

from comfy_api.v0_0_2 import ComfyExtension, io

from .apply import ApplyAdapter
from .comfy.paths import register_folders
from .compare import BlendIDEmbeds, IDSimilarity
from .edit_identities import BlendIdentities, EditIdentity
from .enhancers import InstantIdentity, LoadEnhancer, RefinedIdentity
from .id_encode import IDEncode
from .identities import IdentityInfo, LoadIdentity, SaveIdentity
from .load_face_model import LoadFaceModel
from .settings import TrainingSettingsNode
from .train import EnhancerTrain
from .train_enhancer import SaveEnhancer, TrainAcross


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
