"""Chroma, of Lodestone Rock: FLUX.1's blocks and VAE, T5 alone, and no guidance input."""

from .base_model import BaseModel, Transformer
from .flux import FLUX_BLOCKS, FLUX_KV, FLUX_KV_LAYER
from .language_models import T5_BLOCK, T5_STAND_INS

CHROMA = BaseModel(
    key="chroma",
    title="Chroma",
    encoders={"t5xxl": 4096},
    width=4096,
    clip_layer=-1,
    context_length=512,
    resolution=1024,
    latent_channels=16,
    kv_rank=4,
    adapter_width=256,
    kv_layer=FLUX_KV_LAYER,
    pipeline="ChromaPipeline",
    transformer=Transformer(
        configs=("Chroma",),
        blocks=(*FLUX_BLOCKS, T5_BLOCK),
        kv=FLUX_KV,
        stand_ins={"t5xxl": T5_STAND_INS},
        ragged=True,  # prompts are not padded
        causal=False,
    ),
)
