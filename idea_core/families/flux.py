"""FLUX.1 (dev, schnell) and FLUX.2 Klein 4B, of Black Forest Labs. They share blocks, not text encoders."""

from math import exp

from .base_model import BaseModel, KVRule, LanguagePipeline, Transformer, WeightRule
from .language_models import QWEN3_BLOCK, QWEN3_STAND_INS, T5_BLOCK, T5_STAND_INS

FLUX_BLOCKS = ("DoubleStreamBlock", "SingleStreamBlock")
_DOUBLE = r"transformer.transformer_blocks.\1.attn."
_SINGLE = r"transformer.single_transformer_blocks.\1.attn."
FLUX_KV = (
    KVRule(r"double_blocks\.(\d+)\.txt_attn\.qkv", f"{_DOUBLE}add_k_proj", f"{_DOUBLE}add_v_proj", text_only=True),
    KVRule(r"single_blocks\.(\d+)\.linear1", f"{_SINGLE}to_k", f"{_SINGLE}to_v", text_only=False),
)
FLUX_KV_LAYER = (
    r"transformer\.(transformer_blocks\.\d+\.attn\.add_[kv]_proj|single_transformer_blocks\.\d+\.attn\.to_[kv])"
)
_KLEIN_PIPELINE = LanguagePipeline(
    layers=(9, 18, 27),
    separate=(WeightRule(r"(transformer_blocks\.\d+\.attn\.add_[kv]_proj)", r"transformer.\1", text_only=True),),
    fused=(
        KVRule(
            r"single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj",
            f"{_SINGLE}to_k",
            f"{_SINGLE}to_v",
            text_only=False,
        ),
    ),
    padded=True,
    shift=exp(2.02),  # ComfyUI's; the pipeline's own depends on image size and steps
)

FLUX1 = BaseModel(
    key="flux1",
    title="FLUX.1",
    encoders={"t5xxl": 4096},
    plain_encoders={"clip_l": 768},  # its pooled output alone is used
    width=4096,
    clip_layer=-1,
    context_length=256,  # longer prompts have other lengths: ComfyUI pads to this one
    resolution=1024,
    latent_channels=16,
    kv_rank=4,
    adapter_width=256,
    kv_layer=FLUX_KV_LAYER,
    pipeline="FluxPipeline",
    transformer=Transformer(
        configs=("Flux", "FluxSchnell"),
        blocks=(*FLUX_BLOCKS, T5_BLOCK),
        kv=FLUX_KV,
        stand_ins={"t5xxl": T5_STAND_INS},
        causal=False,
        guidance=1.0,
        guided=False,
    ),
)
KLEIN = BaseModel(
    key="klein4b",
    title="FLUX.2 Klein 4B",
    encoders={"qwen3_4b": 2560},
    width=3 * 2560,  # hidden states of three layers stand side by side
    clip_layer=-1,
    context_length=512,
    resolution=1024,
    latent_channels=128,
    kv_rank=4,
    adapter_width=256,
    kv_layer=FLUX_KV_LAYER,
    pipeline="Flux2KleinPipeline",
    vae="AutoencoderKLFlux2",
    transformer=Transformer(
        configs=("Flux2",),
        blocks=(*FLUX_BLOCKS, QWEN3_BLOCK),
        kv=FLUX_KV,
        stand_ins={"qwen3_4b": QWEN3_STAND_INS},
        headless=_KLEIN_PIPELINE,
    ),
)
