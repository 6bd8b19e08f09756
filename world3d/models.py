"""The world's base model: real diffusers and transformers classes at small size.

It is laid out so that it can be widened to an ordinary Stable Diffusion 1.x checkpoint that computes the same.
Widening repeats each channel k times in a row; each choice here follows from that:

- Levels of 64, 128 and 256 channels are SD's 320, 640 and 1280 divided by k = 5.  One k for all levels is needed,
  since up blocks normalise two levels' channels together.
- 32 norm groups, as in SD.  A group of SD then holds the copies of one group here, and nothing else.  So base widths
  are multiples of 32 that divide 320: 32 leaves one channel a group, whose norm would erase its mean and the
  timestep; 64 is the next.
- 8 heads, as in SD: copies of a head's channels stay in the head.  Their products are k times as large and the divisor
  √k times, which a factor on `to_q` undoes.  The text encoder has 12 heads and a quarter of CLIP-L's width.
- SD has more layers; those in excess do nothing.  A residual layer whose last weights are 0 is the identity.  One of an
  up block, which has a shortcut, then passes on one of its two inputs.
- Three levels fit where there is no middle block.  The first layer of SD's second up block can take what the third
  down block left, and so all that is below is passed over.
- Sinusoids of 64 channels are every fifth frequency of SD's 320.
- The VAE's norms never join levels, so there channels are repeated group by group, with any k for each level.

Attention is on the lower two levels alone: on the upper one it would cost more than all the rest.
"""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from miniature import models

from .scenes import SIZE
from .words import LENGTH

WIDTH, TEXT_LAYERS, TEXT_HEADS = 192, 3, 12
LEVELS, HEADS, GROUPS = (64, 128, 256), 8, 32
LATENT_CHANNELS = models.LATENT_CHANNELS
LATENT_SIZE = SIZE // 4


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return models.build_text_encoder(tokenizer, WIDTH, TEXT_LAYERS, TEXT_HEADS, LENGTH)


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=LEVELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=HEADS,  # diffusers' name for the number of heads
        norm_num_groups=GROUPS,
    )


def build_vae() -> AutoencoderKL:
    return models.build_vae(SIZE)
