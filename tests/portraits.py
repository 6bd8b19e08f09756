"""Photos of drawn people, for the tests of which face is taken."""

from __future__ import annotations

import numpy as np
from face_models import photo

ALICE, BOB = ((205, 150, 110), (60, 40, 30)), ((120, 90, 70), (200, 170, 90))
NOBODY = photo(faces=[])


def portrait(person=ALICE, x=160, y=120, size=100, angle=0.0, **options) -> np.ndarray:
    return photo(faces=[(x, y, size, angle, *person)], **options)


def trio() -> np.ndarray:
    """Alice small at the left, Bob largest in the middle, Alice at the right."""
    faces = [(100, 150, 70, 0, *ALICE), (320, 150, 130, 0, *BOB), (530, 150, 90, 0, *ALICE)]
    return photo(width=640, height=300, faces=faces)
