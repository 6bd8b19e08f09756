"""Who somebody is: shape, skin, hair, eyes; and the points of their head with an expression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .genes import Genes
from .head import AGES, RACES, SEXES, head

OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)
SPREAD, LARGEST = 0.30, 0.9  # of a detail, in whole targets
CALMER = {"neck": 0.25, "ears": 0.8, "head/head-age": 0, "head/head-trans": 0, "head": 0.7, "forehead": 0.6}
HAIR_COLORS = {  # linear light
    "black": (0.012, 0.010, 0.010),
    "dark brown": (0.034, 0.021, 0.014),
    "brown": (0.085, 0.050, 0.030),
    "red": (0.22, 0.075, 0.025),
    "blond": (0.46, 0.30, 0.12),
    "gray": (0.27, 0.26, 0.25),
    "white": (0.60, 0.59, 0.57),
}
EYE_COLORS = {
    "brown": (0.055, 0.026, 0.012),
    "hazel": (0.13, 0.085, 0.03),
    "green": (0.11, 0.15, 0.07),
    "blue": (0.11, 0.20, 0.34),
    "gray": (0.19, 0.22, 0.25),
}
LIGHT_SKIN, DARK_SKIN = np.array([0.68, 0.42, 0.31]), np.array([0.085, 0.042, 0.026])
LIPSTICK = np.array([0.42, 0.06, 0.08])


@dataclass(frozen=True, eq=False)
class Person:
    """Who somebody is: all that stays the same from picture to picture.

    Attributes:
        seed: of moles, strands and other small things.
        sex: 0 woman … 1 man; age: 1 young … 2 old; weight: −1 … 1.
        races: (3,) shares of `RACES`.
        details: of shape, by name, in targets; lopsided: (N,) weights of targets.
        skin, lips, hair_color, eyes: (3,) linear light.
        brow: (3,) thickness, density, arch.
        hairline: how much higher than usual hair begins, in dm.
    """

    seed: int
    sex: float
    age: float
    weight: float
    races: np.ndarray
    details: dict[str, float]
    lopsided: np.ndarray
    skin: np.ndarray
    lips: np.ndarray
    hair: str
    hair_color: np.ndarray
    hairline: float
    style: str
    eyes: np.ndarray
    brow: np.ndarray
    beard: str
    freckles: float
    flush: float


def grow_up(values: np.ndarray, seed: int, male: bool) -> Person:
    """The person of genes (K,)."""
    genes = Genes(values)
    sex = float(np.clip(male + genes.normal(0, 0.12), 0, 1))
    age = 1 + 0.9 * genes.uniform() ** 1.4
    races = np.exp(2.2 * genes.normals(3))
    races /= races.sum()
    african, asian, caucasian = races
    weight = float(np.clip(genes.normal(0, 0.45), -1, 1))
    shape, lopsided = _details(genes), _lopsided(genes)
    tone = float(np.clip(0.84 * african + 0.30 * asian + 0.14 * caucasian + genes.normal(0, 0.10), 0, 1))
    skin = np.exp((1 - tone) * np.log(LIGHT_SKIN) + tone * np.log(DARK_SKIN)) * np.exp(genes.normals(3, 0.05))
    skin *= np.array([1.0, 1.0 + 0.06 * asian, 1.0 - 0.10 * asian])
    painted = genes.uniform() < 0.3 * (1 - sex)
    lips = LIPSTICK * genes.uniform(0.5, 1.1) if painted else skin * [0.92, 0.58, 0.60] * genes.uniform(0.85, 1.1)
    fair = caucasian * (tone < 0.35)
    hair, eyes = genes.choice(_hair_odds(races, fair, age)), genes.choice(_eye_odds(races, fair))
    hair_color = np.array(HAIR_COLORS[hair]) * np.exp(genes.normal(0, 0.18))
    eye_color = np.array(EYE_COLORS[eyes]) * np.exp(genes.normals(3, 0.15))
    style = genes.choice(_style_odds(sex > 0.5, age, african))
    hairline = genes.normal(0, 0.05) + (0.0 if sex < 0.5 else max(age - 1.25, 0) * 0.25)
    brow = [genes.uniform(0.6, 1.35) * (0.85 + 0.35 * sex), genes.uniform(0.6, 1.0), genes.normal(0, 0.8)]
    beard = genes.choice({"none": 0.52, "stubble": 0.18, "moustache": 0.08, "goatee": 0.08, "full": 0.14})
    freckles, flush = max(genes.normal(-0.2, 0.5), 0) * fair, genes.uniform(0.4, 1.3)
    return Person(
        seed=seed, sex=sex, age=age, weight=weight, races=races, details=shape, lopsided=lopsided, skin=skin, lips=lips,
        hair=hair, hair_color=hair_color, hairline=hairline, style=style, eyes=eye_color, brow=np.array(brow),
        beard=beard if sex > 0.5 else "none", freckles=float(freckles), flush=flush,
    )  # fmt: skip


@cache
def details() -> dict[str, tuple[tuple[int, int], ...]]:
    """Each detail's targets as (number, sign); left and right are one."""
    found: dict[str, list[tuple[int, int]]] = {}
    for number, name in enumerate(head().names):
        folder, rest = name.split("/")
        if folder in ("race", "weight", "unit", "asym") or rest.startswith("measure"):
            continue
        rest = rest[2:] if rest[:2] in ("l-", "r-") else rest
        sign = 1
        for minus, plus in OPPOSITES:
            if rest.endswith("-" + minus):
                rest, sign = rest.removesuffix("-" + minus) + "-" + plus, -1
        if folder == "eyes" or not rest.endswith("trans-out"):  # no nose beside the face
            found.setdefault(f"{folder}/{rest}", []).append((number, sign))
    return {name: tuple(parts) for name, parts in found.items()}


def _details(genes: Genes) -> dict[str, float]:
    values = {}
    for name, parts in details().items():
        one_way = all(sign > 0 for _, sign in parts)
        value = max(genes.normal(-0.2, 0.4), 0) if one_way else np.clip(genes.normal(0, SPREAD), -LARGEST, LARGEST)
        for start, factor in CALMER.items():
            value *= factor if name.startswith(start) else 1
        values[name] = float(value)
    return values


def _lopsided(genes: Genes) -> np.ndarray:
    weights = np.zeros(len(head().names))
    numbers = [number for name, number in head().numbers.items() if name.startswith("asym/")]
    weights[numbers] = np.maximum(genes.normals(len(numbers), 0.2) - 0.1, 0)
    return weights


def _hair_odds(races, fair: float, age: float) -> dict[str, float]:
    african, asian, _ = races
    odds = {"black": 0.25 + 3 * african + 3 * asian, "dark brown": 0.8}
    odds |= {"brown": 1.3 * fair, "red": 0.35 * fair, "blond": 0.9 * fair}
    return odds | {"gray": max(age - 1.45, 0) * 12, "white": max(age - 1.65, 0) * 12}


def _eye_odds(races, fair: float) -> dict[str, float]:
    shares = (1.5 + 6 * (races[0] + races[1]), 0.8 * fair, 0.6 * fair, 1.4 * fair, 0.5 * fair)
    return dict(zip(EYE_COLORS, shares))


def _style_odds(male: bool, age: float, african: float) -> dict[str, float]:
    styles = ("bald", "buzz", "short", "side part", "curly", "afro", "bob", "long", "wavy", "tied back")
    if male:
        return dict(zip(styles, (0.6 + (age - 1) * 1.5, 1.0, 2.5, 2.0, 1.0, 0.5 + 2 * african, 0.1, 0.2, 0.1, 0.3)))
    return dict(zip(styles, (0.02, 0.15, 0.6, 0.6, 1.2, 0.3 + 2 * african, 2.0, 2.2, 2.0, 1.6)))


def shape_weights(person: Person) -> np.ndarray:
    """Weights (N,) of all targets, without expression."""
    numbers, weights, age = head().numbers, person.lopsided.copy(), person.age
    ages = dict(zip(AGES, (max(1 - age, 0), 1 - abs(age - 1), max(age - 1, 0))))
    sexes = dict(zip(SEXES, (1 - person.sex, person.sex)))
    heavy = {"min": max(-person.weight, 0), "average": 1 - abs(person.weight), "max": max(person.weight, 0)}
    for sex in SEXES:
        for stage in AGES:
            shares = {f"race/{race}-{sex}-{stage}": part for race, part in zip(RACES, person.races)}
            shares |= {f"weight/{sex}-{stage}-{amount}": part for amount, part in heavy.items()}
            for key, part in shares.items():
                if key in numbers:
                    weights[numbers[key]] += part * sexes[sex] * ages[stage]
    for name, parts in details().items():
        value = person.details[name]
        for number, sign in parts:
            weights[number] += max(sign * value, 0)
    return weights


def neutral(person: Person) -> np.ndarray:
    """Points (V, 3) of a person's head without expression."""
    return head().points + head().moved(shape_weights(person))


def expressed(points: np.ndarray, units: dict[str, float]) -> np.ndarray:
    """Points (V, 3) moved by face units of given strengths."""
    weights = np.zeros(len(head().names))
    for unit, value in units.items():
        weights[head().numbers[f"unit/{unit}"]] = value
    return points + head().moved(weights)
