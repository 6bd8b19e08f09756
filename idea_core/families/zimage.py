"""Z-Image (Base, Turbo), of Tongyi-MAI."""

from .base_model import BaseModel, KVRule, LanguagePipeline, Transformer, WeightRule
from .language_models import QWEN3_BLOCK, QWEN3_STAND_INS

_LAYER = r"diffusion_model.\1.attention."
ZIMAGE_KV_LAYER = r"diffusion_model\.(context_refiner|layers)\.\d+\.attention\.to_[kv]"
ZIMAGE_PIPELINE = LanguagePipeline(
    layers=(-2,),
    separate=(
        WeightRule(r"(context_refiner\.\d+\.attention\.to_[kv])", r"diffusion_model.\1", text_only=True),
        WeightRule(r"(layers\.\d+\.attention\.to_[kv])", r"diffusion_model.\1", text_only=False),
    ),
    thinking=True,
    unguided=0.0,
)

ZIMAGE = BaseModel(
    key="zimage",
    title="Z-Image",
    encoders={"qwen3_4b": 2560},
    width=2560,
    clip_layer=-2,
    context_length=512,
    resolution=1024,
    latent_channels=16,
    kv_rank=4,
    adapter_width=256,
    kv_layer=ZIMAGE_KV_LAYER,
    pipeline="ZImagePipeline",
    transformer=Transformer(
        configs=("ZImage",),
        blocks=("JointTransformerBlock", QWEN3_BLOCK),
        kv=(
            KVRule(r"(context_refiner\.\d+)\.attention\.qkv", f"{_LAYER}to_k", f"{_LAYER}to_v", text_only=True),
            KVRule(r"(layers\.\d+)\.attention\.qkv", f"{_LAYER}to_k", f"{_LAYER}to_v", text_only=False),
        ),
        stand_ins={"qwen3_4b": QWEN3_STAND_INS},
        ragged=True,
        headless=ZIMAGE_PIPELINE,
    ),
)
