"""The miniature world's flow-matching base model: Z-Image's classes at small size (`world3d.flow`)."""

from .base_model import BaseModel, Transformer
from .language_models import QWEN3_STAND_INS
from .zimage import ZIMAGE_KV_LAYER, ZIMAGE_PIPELINE

MINI_FLOW = BaseModel(
    key="mini_flow",
    title="the miniature flow-matching world",
    encoders={"qwen3_mini": 128},
    width=128,
    clip_layer=-2,
    context_length=64,
    resolution=96,
    kv_rank=4,
    adapter_width=64,
    kv_layer=ZIMAGE_KV_LAYER,
    pipeline="ZImagePipeline",
    transformer=Transformer(
        configs=(),
        blocks=(),
        kv=(),
        stand_ins={"qwen3_mini": QWEN3_STAND_INS},
        ragged=True,
        headless=ZIMAGE_PIPELINE,
    ),
)
