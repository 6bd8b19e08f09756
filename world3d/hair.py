"""Hair and beards as strands that grow from the skin, and ribbons that show them to a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .head import head
from .person import Person
from .rasterise import point_normals
from .shell import Shell
from .skin import hairline
from .template import AXIS, smooth, template

STRANDS, JOINTS = 2600, 11
WIDTH, CURLY_WIDTH, BEARD_WIDTH = 0.038, 0.052, 0.026  # dm, of a ribbon
FRINGES = 0.18  # share of long hair with a fringe
FOREHEAD = 0.65  # dm: half the width of a fringe
DOWN = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True)
class Style:
    """How hair grows: its length in dm, and how it stands, falls and curls."""

    length: float
    lift: float = 0.30
    weight: float = 1.1
    volume: float = 0.06
    curl: float = 0.05
    spin: float = 2.4
    hangs: bool = False
    combed: bool = False


STYLES = {
    "short": Style(0.32, lift=0.55, weight=0.15, volume=0.03, combed=True),
    "side part": Style(0.58, lift=0.55, weight=0.3, volume=0.05, combed=True),
    "curly": Style(0.55, lift=0.9, weight=0.18, curl=0.9),
    "afro": Style(0.7, lift=1.5, weight=0.0, volume=0.02, curl=1.2),
    "bob": Style(1.55, hangs=True),
    "long": Style(2.7, hangs=True),
    "wavy": Style(2.3, curl=0.28, spin=1.6, hangs=True),
    "tied back": Style(1.0, lift=0.05, weight=0.1, volume=0.03),
}


@dataclass(frozen=True, eq=False)
class Strands:
    """S strands: paths (S, J, 3) in dm, widths (S,) in dm, shades (S,)."""

    paths: np.ndarray
    widths: np.ndarray
    shades: np.ndarray


def grow(person: Person, points: np.ndarray) -> Strands:
    """All strands of somebody whose head has points (V, 3)."""
    rng = np.random.default_rng(person.seed + 47)
    parts = []
    if person.style in STYLES:
        parts.append(_Growth(person, points, rng).strands())
    if person.beard in ("full", "goatee", "moustache"):
        parts.append(_beard(person, points, rng))
    parts.append(Strands(np.zeros((0, JOINTS, 3)), np.zeros(0), np.zeros(0)))
    return Strands(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("paths", "widths", "shades")))


def _roots(points, triangles, count: int, rng):
    """Places, normals and places on the template, (count, 3) each, spread evenly over triangles."""
    normals, rest = point_normals(points, template().scalp), head().points
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = triangles[rng.choice(len(triangles), count, p=area / area.sum())]
    weights = rng.dirichlet([1, 1, 1], count)[..., None]
    root, normal, home = ((values[chosen] * weights).sum(1) for values in (points, normals, rest))
    return root, normal / np.linalg.norm(normal, axis=1, keepdims=True), home


class _Growth:
    """Strands of the head of one person, joint after joint."""

    def __init__(self, person: Person, points: np.ndarray, rng: np.random.Generator):
        self.rng, self.style, self.name = rng, STYLES[person.style], person.style
        middle = head().points[template().scalp].mean(1)
        angle = np.arctan2(middle[:, 0], middle[:, 2] - AXIS)
        ear = (np.abs(middle[:, 0]) > 0.86) & (middle[:, 1] < 7.35) & (middle[:, 2] < 0.75)
        grows = (middle[:, 1] > hairline(angle, person)) & ~ear
        self.root, self.normal, self.home = _roots(points, template().scalp[grows], STRANDS, rng)
        self.shell = Shell(points)
        self.front = smooth((self.home[:, 2] - 0.3) / 0.9)
        part = rng.choice([-1, 0, 1]) * rng.uniform(0.15, 0.4)
        self.side = np.where(self.root[:, 0] > part, 1.0, -1.0)
        self.fringe = person.style in ("bob", "long") and rng.random() < FRINGES
        self.depth = rng.uniform(0, 1, STRANDS) ** 0.7
        eyes = [points[numbers] for numbers in template().eyes]
        self.brow = np.mean([eye[:, 1].mean() for eye in eyes]) + 0.30
        self.eye = max(np.abs(eye[:, 0]).max() for eye in eyes)
        back = points[np.unique(template().scalp)][:, 2].min() + 0.1
        self.knot = np.array([0, points[:, 1].max() - 0.75, back])

    def strands(self) -> Strands:
        rng, style = self.rng, self.style
        comb, reach = self._comb(), self._reach()
        phase, spin = rng.uniform(0, 6.3, STRANDS), rng.uniform(0.8, 1.2, STRANDS) * style.spin
        direction = self.normal * style.lift + comb + rng.normal(0, 0.10, self.root.shape)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        keep_off = self.eye + rng.uniform(0.10, 0.30)
        end = self.brow + rng.uniform(0.0, 0.10, STRANDS)
        q, path = self.root, [self.root]
        for joint in range(1, JOINTS):
            direction = direction + DOWN * style.weight * 0.55 + comb * (0.10 if joint < 4 else 0.0)
            if self.name == "tied back":
                aim = self.knot - q
                direction = direction * 0.5 + aim / (np.linalg.norm(aim, axis=1, keepdims=True) + 1e-6)
            turn = phase + spin * joint
            wobble = np.stack([np.cos(turn), np.sin(turn + 0.7 * phase), np.sin(turn)], 1)
            direction = direction + style.curl * wobble * 0.5 + rng.normal(0, 0.04, direction.shape)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            q = q + direction * (reach / (JOINTS - 1))[:, None]
            q = self.shell.push_out(q, style.volume * (0.35 + self.depth) + 0.015)
            q = self._off_the_face(self._off_the_neck(q) if style.hangs else q, keep_off, end)
            path.append(q)
        width = CURLY_WIDTH if self.name in ("afro", "curly") else WIDTH
        shades = np.clip(rng.normal(0.42, 0.22, STRANDS) * (0.55 + 0.6 * self.depth), 0.05, 1.2)
        return Strands(np.stack(path, 1), np.full(STRANDS, width), shades)

    def _comb(self) -> np.ndarray:
        """The direction (S, 3) in which hair is combed."""
        comb = np.zeros_like(self.root)
        front = self.front[:, None]
        if self.style.combed:
            across = self.rng.choice([-1, 1]) * 0.7
            comb += np.array([across, 0.22, 0.12]) * front + np.array([0, -0.9, -0.35]) * (1 - front)
        elif self.style.hangs:
            comb += np.stack([self.side, -0.15 + 0 * self.side, -0.35 + 0 * self.side], 1)
            if self.fringe:
                forward = front * (np.abs(self.root[:, :1]) < FOREHEAD)
                comb = comb * (1 - forward) + np.array([0, -0.4, 1.0]) * forward
        elif self.name == "tied back":
            comb += np.array([0, 0.15, -1.2])
        return comb

    def _reach(self) -> np.ndarray:
        """Lengths (S,) in dm."""
        reach = self.style.length * self.rng.uniform(0.8, 1.2) * self.rng.uniform(0.75, 1.05, STRANDS)
        if self.fringe:
            short = (self.front > 0.5) & (np.abs(self.root[:, 0]) < FOREHEAD)
            reach = np.where(short, np.minimum(reach, self.rng.uniform(0.55, 0.68)), reach)
        if self.style.combed:
            reach *= np.where(self.home[:, 1] < 7.6, 0.45, 1.0)
        return reach

    def _off_the_neck(self, q: np.ndarray) -> np.ndarray:
        away = np.hypot(q[:, 0], q[:, 2] - 0.2)
        need = np.where(q[:, 1] < 6.5, 0.70 + 0.1 * self.depth, 0)
        factor = np.where(away < need, need / (away + 1e-6), 1)
        return np.stack([q[:, 0] * factor, q[:, 1], (q[:, 2] - 0.2) * factor + 0.2], 1)

    def _off_the_face(self, q: np.ndarray, keep_off: float, end: np.ndarray) -> np.ndarray:
        """Hair beside the face goes past it; hair above the face ends above the brows."""
        ahead = q[:, 2] > 0.45
        stays_above = ahead & (np.abs(self.root[:, 0]) < FOREHEAD) & (self.fringe or not self.style.hangs)
        height = np.where(stays_above, np.maximum(q[:, 1], end), q[:, 1])
        beside = keep_off * smooth((self.brow + 0.25 - height) / 0.35)
        aside = np.where(ahead & (height < self.brow + 0.25) & ~stays_above, beside, 0)
        x = np.where(np.abs(q[:, 0]) < aside, self.side * aside, q[:, 0])
        return np.stack([x, height, q[:, 2]], 1)


def _beard(person: Person, points: np.ndarray, rng) -> Strands:
    m = head().points[template().scalp].mean(1)
    across, ahead = np.abs(m[:, 0]), np.cos(np.arctan2(m[:, 0], m[:, 2] - AXIS))
    lip = ((m[:, 0] / 0.37) ** 2 + ((m[:, 1] - 6.615) / 0.10) ** 2 < 1) & (m[:, 2] > 1)
    inside = (m[:, 2] < 1.2) & (across < 0.45) & (m[:, 1] > 6.3)
    line = np.interp(across, [0, 0.25, 0.5, 0.8, 0.95], [6.86, 6.76, 6.62, 6.85, 7.1])
    full = (m[:, 1] < line) & (m[:, 1] > 6.12) & (ahead > 0.0) & ~lip & ~inside
    upper = (m[:, 1] > 6.68) & (m[:, 1] < 6.84) & (across < 0.36) & (m[:, 2] > 1.2)
    chin = (m[:, 1] < 6.52) & (m[:, 1] > 6.15) & (across < 0.27) & (m[:, 2] > 0.9)
    grows = {"full": full | upper, "goatee": upper | chin, "moustache": upper}[person.beard]
    count = {"full": 1300, "goatee": 500, "moustache": 260}[person.beard]
    root, normal, _ = _roots(points, template().scalp[grows], count, rng)
    length = rng.uniform(0.06, 0.14) * (1.5 if person.beard == "full" else 1)
    outward = np.stack([np.sign(root[:, 0]) * 0.25, np.full(count, -0.9), np.zeros(count)], 1)
    direction = normal * 0.5 + outward + rng.normal(0, 0.25, root.shape)
    j = np.linspace(0, 1, JOINTS)[None, :, None]
    bent = direction[:, None] * j + np.array([0, -0.3, 0.05]) * j**2
    paths = root[:, None] + bent * length * rng.uniform(0.6, 1.1, count)[:, None, None]
    return Strands(paths, np.full(count, BEARD_WIDTH), np.clip(rng.normal(0.40, 0.2, count), 0.05, 1.2))


def ribbons(strands: Strands, view: np.ndarray):
    """Points, normals (S·J·2, 3), attributes (S·J·2, 4) and faces of ribbons that face a camera at `view`."""
    count, joints = strands.paths.shape[:2]
    tangent = np.gradient(strands.paths, axis=1)
    across = np.cross(tangent, view - strands.paths)
    across /= np.linalg.norm(across, axis=-1, keepdims=True) + 1e-9
    taper = np.interp(np.linspace(0, 1, joints), [0, 0.2, 0.75, 1], [0.8, 1, 0.85, 0.25])
    half = across * (strands.widths[:, None] * taper / 2)[..., None]
    points = np.stack([strands.paths - half, strands.paths + half], 2).reshape(-1, 3)
    normal = np.cross(across, tangent)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    shades = np.broadcast_to(strands.shades[:, None, None], (count, joints, 1))
    attributes = np.concatenate([tangent, shades], -1)
    first = (np.arange(count)[:, None] * joints + np.arange(joints - 1)) * 2
    faces = np.stack([first, first + 1, first + 2, first + 1, first + 3, first + 2], -1).reshape(-1, 3)
    return points, np.repeat(normal.reshape(-1, 3), 2, 0), np.repeat(attributes.reshape(-1, 4), 2, 0), faces
