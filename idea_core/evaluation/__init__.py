"""Face similarity and prompt similarity of images (Celeb Basis protocol, arXiv 2306.00926)."""

from ..files.textfile import shipped_lines
from .clip import ClipScorer
from .measures import ImageScore, Witness, score_images, summarise
from .report import write_report

PROTOCOL_PROMPTS = shipped_lines(__file__, "protocol_prompts.txt")
"""Prompts with `{}` for a person: expressions, clothes, roles, places and styles, as the protocol's."""

__all__ = ["PROTOCOL_PROMPTS", "ClipScorer", "ImageScore", "Witness", "score_images", "summarise", "write_report"]
