"""Face similarity and prompt similarity of images (Celeb Basis protocol, arXiv 2306.00926)."""

from .clip import ClipScorer
from .measures import ImageScore, score_images, summarise
from .report import write_report

__all__ = ["ClipScorer", "ImageScore", "score_images", "summarise", "write_report"]
