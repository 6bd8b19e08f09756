"""Light on what the rasteriser found: a soft key light with a shadow, a fill light, a sky and a ground.

Colours are linear light until `develop`.  Skin and cloth follow Cook and Torrance's model with Schlick's Fresnel
term; hair follows Kajiya and Kay's (SIGGRAPH 1989).
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

SKIN, EYE, TEETH, TONGUE, LASH, CLOTH, HAIR, FRAME, HAT = range(9)
IRIS, PUPIL = 0.49, 0.18  # radius as an angle about the eye's middle, in radians
SPREAD = 2.0  # texels between the samples of a shadow: its softness
ROUGHNESS = np.array([0.5, 0.08, 0.25, 0.4, 1.0, 0.95, 0.5, 0.3, 0.95])  # by kind
MIRROR = np.array([0.04, 0.045, 0.04, 0.04, 0.04, 0.02, 0.04, 0.08, 0.02])  # reflectance along the normal, by kind
WRAP = np.array([0.28, 0.2, 0.3, 0.3, 0.0, 0.0, 0.0, 0.0, 0.1])  # how far light creeps around, by kind
OPEN = np.array([-1.0, 0.62, 0.5, 0.35, 1.0, 0.9, 1.0, 1.0, -1.0])  # sky that is seen, by kind; −1: by point
RED_CREEP, GREEN_CREEP, BLUE_CREEP = 1.0, 0.45, 0.3  # red light goes farther in skin
_compiled = numba.njit(cache=True, fastmath=True)


class Mesh(NamedTuple):
    """V points and T triangles; attributes are map u, map v, seen sky, lips; a hair's are its tangent and shade."""

    points: np.ndarray  # (V, 3)
    normals: np.ndarray  # (V, 3)
    attributes: np.ndarray  # (V, 4)
    faces: np.ndarray  # (T, 3)
    kinds: np.ndarray  # (T,)


class Looks(NamedTuple):
    """Colours and the eyes."""

    colors: np.ndarray  # (9, 3) by kind; that of skin is the lips'
    texture: np.ndarray  # (h, w, 6) albedo, roughness, bumps along the map
    iris: np.ndarray  # (3,)
    eyes: np.ndarray  # (2, 3) middles
    split: np.ndarray  # (4,) plane between the eyes
    gaze: np.ndarray  # (3,)
    neckline: float  # map v below which skin is clothed


class Lights(NamedTuple):
    """Where light comes from, and the camera."""

    key_from: np.ndarray  # (3,)
    key: np.ndarray  # (3,)
    sky: np.ndarray  # (3,)
    ground: np.ndarray  # (3,)
    fill_from: np.ndarray  # (3,)
    fill: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3) of the shadow map
    shadow: np.ndarray  # (S, S)
    texels: float  # of the shadow map in 1 dm
    center: np.ndarray  # (3,) the shadow map's middle
    camera: np.ndarray  # (3,)


@_compiled
def _unit(x, y, z):
    length = (x * x + y * y + z * z) ** 0.5 + 1e-9
    return x / length, y / length, z / length


@_compiled
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_compiled
def _sample(texture, u, v, out):
    """The texture at (u, v), between texels, into `out`; u goes around."""
    height, width, channels = texture.shape
    fx, fy = u * width - 0.5, v * height - 0.5
    x0, y0 = int(np.floor(fx)), int(np.floor(fy))
    tx, ty = fx - x0, fy - y0
    xa, xb = x0 % width, (x0 + 1) % width
    ya, yb = min(max(y0, 0), height - 1), min(max(y0 + 1, 0), height - 1)
    for k in range(channels):
        top = texture[ya, xa, k] * (1 - tx) + texture[ya, xb, k] * tx
        low = texture[yb, xa, k] * (1 - tx) + texture[yb, xb, k] * tx
        out[k] = top * (1 - ty) + low * ty


@_compiled
def _lit(p, slope, hair, lights):
    """Share of the key light that reaches a point, over 25 samples of the shadow map."""
    side, m = lights.shadow.shape[0], lights.axes
    dx, dy, dz = p[0] - lights.center[0], p[1] - lights.center[1], p[2] - lights.center[2]
    x = (dx * m[0, 0] + dy * m[0, 1] + dz * m[0, 2]) * lights.texels + side / 2
    y = (dx * m[1, 0] + dy * m[1, 1] + dz * m[1, 2]) * lights.texels + side / 2
    z = -(dx * m[2, 0] + dy * m[2, 1] + dz * m[2, 2])
    bias = 0.12 if hair else 0.04 + 0.06 * (1 - max(slope, 0.0))
    lit = 0.0
    for oy in range(-2, 3):
        for ox in range(-2, 3):
            qx, qy = int(x + ox * SPREAD), int(y + oy * SPREAD)
            if qx < 0 or qy < 0 or qx >= side or qy >= side or lights.shadow[qy, qx] > z - bias:
                lit += 1.0
    return lit / 25.0


@_compiled
def _eye(p, looks, base):
    """The colour of an eye's point into `base`; its normal."""
    split = looks.split
    e = 0 if p[0] * split[0] + p[1] * split[1] + p[2] * split[2] > split[3] else 1
    n = _unit(p[0] - looks.eyes[e, 0], p[1] - looks.eyes[e, 1], p[2] - looks.eyes[e, 2])
    angle = np.arccos(min(max(_dot(n, looks.gaze), -1.0), 1.0))
    white = min(max((angle - IRIS) / 0.06, 0.0), 1.0)
    vein = 0.14 * min(max((angle - IRIS) / 0.7, 0.0), 1.0)
    inner = min(max((angle - PUPIL) / (IRIS - PUPIL), 0.0), 1.0)
    ring = (0.75 + 0.6 * inner) * min(max((1 - inner) * 5, 0.18), 1.0) * 1.15
    for k in range(3):
        if angle < PUPIL:
            base[k] = 0.004
        elif angle < IRIS:
            base[k] = looks.iris[k] * ring
        else:
            sclera = 0.66 if k == 0 else (0.60 - vein if k == 1 else 0.57 - vein)
            base[k] = looks.iris[k] * 0.2 * (1 - white) + sclera * white
    return n


@_compiled
def _hair(base, tangent, n, v, lit, lights, out):
    """Kajiya and Kay's hair: light by the angle to the strand."""
    tl, tv = _dot(tangent, lights.key_from), _dot(tangent, v)
    sl, sv = max(1 - tl * tl, 0.0) ** 0.5, max(1 - tv * tv, 0.0) ** 0.5
    shine, up = max(sl * sv - tl * tv, 0.0), 0.5 + 0.5 * n[1]
    for k in range(3):
        ambient = lights.sky[k] * up + lights.ground[k] * (1 - up)
        value = base[k] * (lights.key[k] * lit * sl * 0.55 + ambient * 0.75 + lights.fill[k] * 0.25)
        out[k] = value + lights.key[k] * lit * (0.013 * shine**60 + 0.06 * (0.2 + base[k]) * shine**14)


@_compiled
def _surface(base, n, v, material, lit, lights, out):
    """Cook and Torrance's surface; `material` is kind, roughness, seen sky."""
    kind, rough, seen = int(material[0]), material[1], material[2]
    mirror, wrap = MIRROR[kind], WRAP[kind]
    slope, up = _dot(n, lights.key_from), 0.5 + 0.5 * n[1]
    fills = _dot(n, lights.fill_from)
    h = _unit(lights.key_from[0] + v[0], lights.key_from[1] + v[1], lights.key_from[2] + v[2])
    nh, nv, vh = max(_dot(n, h), 0.0), max(_dot(n, v), 0.02), max(_dot(v, h), 0.0)
    a2, nl = rough**4, max(slope, 0.0)
    spread = a2 / (3.14159 * (nh * nh * (a2 - 1) + 1) ** 2 + 1e-9)
    fresnel = mirror + (1 - mirror) * (1 - vh) ** 5
    shine = min(spread * fresnel / (4 * max(nl, nv) + 0.1), 8.0)
    rim = (mirror + (1 - mirror) * (1 - nv) ** 5) * (1 - rough) * 0.4
    for k in range(3):
        w = wrap * (RED_CREEP if k == 0 else (GREEN_CREEP if k == 1 else BLUE_CREEP))
        diffuse = max((slope + w) / (1 + w), 0.0)
        soft = lit**0.6 if wrap > 0 and k == 0 else lit
        bounce = seen**0.7 if kind == SKIN and k == 0 else seen
        ambient = (lights.sky[k] * up + lights.ground[k] * (1 - up)) * bounce
        around = lights.fill[k] * max((fills + w) / (1 + w), 0.0) * bounce
        out[k] = base[k] * (lights.key[k] * diffuse * soft + ambient + around)
        out[k] += lights.key[k] * shine * nl * lit + rim * ambient


@_compiled
def _skin(mesh, t, a4, n, looks, sample, base):
    """The colour of a point of skin into `base`; its bumped normal, its roughness, and whether it is clothed."""
    u, first = a4[0], mesh.attributes[mesh.faces[t, 0], 0]
    if max(abs(first - mesh.attributes[mesh.faces[t, 1], 0]), abs(first - mesh.attributes[mesh.faces[t, 2], 0])) > 0.5:
        u = first  # the triangle lies across the map's seam
    _sample(looks.texture, u, a4[1], sample)
    if a4[1] > looks.neckline + 0.035 * np.cos((u - 0.5) * 6.2832):
        for k in range(3):
            base[k] = looks.colors[CLOTH, k]
        return n, 0.95, True
    lips = min(max(a4[3], 0.0), 1.0)
    for k in range(3):
        base[k] = sample[k] * (1 - lips) + looks.colors[SKIN, k] * lips
    # The bump acts along the map's directions, which are about right and up of the surface.
    n = _unit(n[0] + sample[4] * n[2], n[1] + sample[5], n[2] - sample[4] * n[0])
    return n, sample[3] * (1 - 0.35 * lips), False


@_compiled
def shade(ids, bary, mesh, looks, lights, out):
    """Colours (H, W, 3) of the pixels (H, W) in which there is a triangle; changes `out` alone."""
    sample, base, a4, color = np.zeros(looks.texture.shape[2]), np.zeros(3), np.zeros(4), np.zeros(3)
    p, raw = np.zeros(3), np.zeros(3)
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            t = ids[row, column]
            if t < 0:
                continue
            wb, wc = bary[row, column, 0], bary[row, column, 1]
            wa, a, b, c = 1 - wb - wc, mesh.faces[t, 0], mesh.faces[t, 1], mesh.faces[t, 2]
            for k in range(3):
                p[k] = wa * mesh.points[a, k] + wb * mesh.points[b, k] + wc * mesh.points[c, k]
                raw[k] = wa * mesh.normals[a, k] + wb * mesh.normals[b, k] + wc * mesh.normals[c, k]
            for k in range(4):
                a4[k] = wa * mesh.attributes[a, k] + wb * mesh.attributes[b, k] + wc * mesh.attributes[c, k]
            n = _unit(raw[0], raw[1], raw[2])
            v = _unit(lights.camera[0] - p[0], lights.camera[1] - p[1], lights.camera[2] - p[2])
            kind = mesh.kinds[t]
            rough = ROUGHNESS[kind]
            if kind == SKIN:
                n, rough, clothed = _skin(mesh, t, a4, n, looks, sample, base)
                kind = CLOTH if clothed else SKIN
            elif kind == EYE:
                n = _eye(p, looks, base)
            else:
                shine = 0.45 + 1.1 * a4[3] if kind == HAIR else 1.0
                for k in range(3):
                    base[k] = looks.colors[kind, k] * shine
            if _dot(n, v) < 0 and mesh.kinds[t] != SKIN:
                n = (-n[0], -n[1], -n[2])
            lit = _lit(p, _dot(n, lights.key_from), kind == HAIR, lights)
            if kind == HAIR:
                _hair(base, _unit(a4[0], a4[1], a4[2]), n, v, lit, lights, color)
            else:
                seen = OPEN[kind] if OPEN[kind] >= 0 else a4[2]
                lit = 0.25 + 0.75 * lit if kind == EYE else lit
                _surface(base, n, v, (float(kind), rough, seen), lit, lights, color)
            out[row, column] = color


def develop(linear: np.ndarray, exposure: float = 1.0, warmth: float = 0.0) -> np.ndarray:
    """Linear light → sRGB in 0…1, with a film's shoulder."""
    x = linear * exposure * np.array([1 + warmth, 1.0, 1 - warmth])
    x = x / (1 + 0.25 * x)
    return np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-6) ** (1 / 2.4) - 0.055).clip(0, 1)
