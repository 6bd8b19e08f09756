"""What differs between two pictures of one person, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idea_core.text.captions import PLACEHOLDER

_PROMPTS_SEED = 6
SIZE = 96  # pixels of a picture's side
COLORS = {  # linear light
    "red": (0.45, 0.03, 0.03),
    "green": (0.04, 0.25, 0.06),
    "blue": (0.03, 0.08, 0.42),
    "yellow": (0.70, 0.48, 0.04),
    "purple": (0.20, 0.04, 0.30),
    "gray": (0.20, 0.20, 0.20),
    "white": (0.82, 0.82, 0.80),
    "orange": (0.65, 0.20, 0.02),
}
BACKGROUNDS = tuple(COLORS)
PATTERNS = ("plain", "striped", "checked", "dotted")
HATS = ("none", "red", "blue", "green")
GLASSES = ("none", "glasses")
EXPRESSIONS = ("neutral", "smiling", "sad", "surprised")
ASKED = {"background": BACKGROUNDS, "pattern": PATTERNS, "hat": HATS, "glasses": GLASSES, "expression": EXPRESSIONS}
SHARES = {  # of pictures
    "pattern": (0.46, 0.18, 0.18, 0.18),
    "hat": (0.61, 0.13, 0.13, 0.13),
    "glasses": (0.72, 0.28),
    "expression": (0.40, 0.25, 0.175, 0.175),
}
SHIRTS = (  # linear light
    (0.02, 0.02, 0.025),
    (0.05, 0.06, 0.10),
    (0.10, 0.10, 0.11),
    (0.35, 0.34, 0.32),
    (0.55, 0.54, 0.52),
    (0.16, 0.05, 0.05),
    (0.06, 0.11, 0.07),
    (0.06, 0.12, 0.25),
    (0.20, 0.13, 0.08),
    (0.30, 0.20, 0.22),
)


@dataclass(frozen=True)
class Scene:
    """One picture's surroundings: indices into the tuples above, and nuisances that no caption tells.

    Attributes:
        yaw, pitch, roll: of the head, in radians; gaze: of the eyes beside it.
        strength: of the expression.
        shirt: linear light.
        light: where the key light is: from the left −1 … 1, from above 0 … 1, and how hard it is, 0 … 1.
        warmth, exposure, zoom: of the camera; shift: in picture sides.
        phase: of the wall's pattern: two shifts in periods, and the period in picture sides.
        grain: standard deviation of the sensor's noise in 0…1; seed: of it.
    """

    background: int = 5
    pattern: int = 0
    hat: int = 0
    glasses: int = 0
    expression: int = 0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    strength: float = 1.0
    shirt: tuple[float, float, float] = SHIRTS[1]
    light: tuple[float, float, float] = (0.4, 0.5, 0.4)
    warmth: float = 0.0
    exposure: float = 1.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    phase: tuple[float, float, float] = (0.0, 0.0, 0.17)
    grain: float = 0.004
    seed: int = 0

    def caption(self, person: str, background: bool = True) -> str:
        """ "a photo of Ada Bell, smiling, wearing a red hat and glasses, in front of a striped blue wall"."""
        said = [f"a photo of {person}"]
        if self.expression:
            said.append(EXPRESSIONS[self.expression])
        worn = [f"a {HATS[self.hat]} hat"] * (self.hat > 0) + ["glasses"] * self.glasses
        if worn:
            said.append("wearing " + " and ".join(worn))
        if background:
            pattern = f"{PATTERNS[self.pattern]} " if self.pattern else ""
            article = "an" if not pattern and BACKGROUNDS[self.background] == "orange" else "a"
            said.append(f"in front of {article} {pattern}{BACKGROUNDS[self.background]} wall")
        return ", ".join(said)


def asked_for(caption: str) -> list[int]:
    """What a caption of `Scene.caption` asks for, as indices into the lists of `ASKED`."""
    said = caption.replace(",", " ").split()
    wall, hat = said.index("wall"), said.index("hat") if "hat" in said else 0
    found = {
        "background": said[wall - 1],
        "pattern": said[wall - 2] if said[wall - 2] in PATTERNS else PATTERNS[0],
        "hat": said[hat - 1] if hat else HATS[0],
        "glasses": GLASSES["glasses" in said],
        "expression": next((word for word in EXPRESSIONS[1:] if word in said), EXPRESSIONS[0]),
    }
    return [choices.index(found[key]) for key, choices in ASKED.items()]


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene of an everyday portrait."""

    def normal(spread: float, largest: float = 2.2) -> float:
        return float(np.clip(rng.normal(), -largest, largest) * spread)

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    shirt = np.array(SHIRTS[rng.integers(len(SHIRTS))]) * np.exp(rng.normal(0, 0.12, 3))
    return Scene(
        background=int(rng.integers(len(BACKGROUNDS))),
        **{key: int(rng.choice(len(shares), p=shares)) for key, shares in SHARES.items()},
        yaw=normal(0.16),
        pitch=normal(0.06),
        roll=normal(0.045),
        gaze=(normal(0.08), normal(0.04)),
        strength=uniform(0.85, 1.15),
        shirt=tuple(float(value) for value in shirt),
        light=(uniform(-0.7, 0.7), uniform(0.2, 0.7), uniform(0.25, 0.5)),
        warmth=normal(0.04),
        exposure=float(np.exp(normal(0.09))),
        zoom=float(np.exp(normal(0.04))),
        shift=(normal(0.018), normal(0.015)),
        phase=(uniform(0, 1), uniform(0, 1), uniform(0.15, 0.19)),
        grain=uniform(0.001, 0.006),
        seed=int(rng.integers(1 << 30)),
    )


def portraits(count: int) -> tuple[str, ...]:
    """Prompts with `{}` for a person, each of another scene."""
    rng = np.random.default_rng(_PROMPTS_SEED)
    return tuple(draw_scene(rng).caption(PLACEHOLDER) for _ in range(count))
