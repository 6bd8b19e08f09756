"""How alike pictures are to a person, and how well they obey their prompts (Celeb Basis protocol, arXiv 2306.00926)."""

from .clip import ClipScorer
from .measures import Evaluation, PictureScore, score_pictures
from .report import write_report

__all__ = ["ClipScorer", "Evaluation", "PictureScore", "score_pictures", "write_report"]
