"""Triangles to pixels: z-buffer, shadow map, normals.  numba, one core.

Lengths are in dm; pixels are counted from the upper left corner.
"""

from __future__ import annotations

import numba
import numpy as np

NEAREST = 0.1  # dm: triangles before this are not drawn
_compiled = numba.njit(cache=True, fastmath=True)


@_compiled
def _box(x, y, a, b, c, height, width):
    """Left, right, top and bottom pixel, and twice the signed area, of a triangle."""
    left = max(int(np.ceil(min(x[a], x[b], x[c]) - 0.5)), 0)
    right = min(int(max(x[a], x[b], x[c]) - 0.5), width - 1)
    top = max(int(np.ceil(min(y[a], y[b], y[c]) - 0.5)), 0)
    bottom = min(int(max(y[a], y[b], y[c]) - 0.5), height - 1)
    area = (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
    return left, right, top, bottom, area


@_compiled
def rasterise(x, y, z, faces, depth, ids, bary):
    """Draw triangles in perspective and keep the nearest.

    Args:
        x, y: (V,) pixels; z: (V,) distance from the camera in dm.
        faces: (T, 3) of points.
        depth: (H, W) nearest 1 / z so far, 0 where there is nothing; changed.
        ids: (H, W) number of the triangle in each pixel; changed.
        bary: (H, W, 2) weights of the triangle's second and third corner; changed.
    """
    height, width = depth.shape
    for t in range(len(faces)):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        if min(z[a], z[b], z[c]) < NEAREST:
            continue
        left, right, top, bottom, area = _box(x, y, a, b, c, height, width)
        if area == 0 or left > right or top > bottom:
            continue
        ia, ib, ic = 1 / z[a], 1 / z[b], 1 / z[c]
        b_x, b_y = (y[c] - y[a]) / area, -(x[c] - x[a]) / area
        c_x, c_y = -(y[b] - y[a]) / area, (x[b] - x[a]) / area
        for row in range(top, bottom + 1):
            wb = (left + 0.5 - x[a]) * b_x + (row + 0.5 - y[a]) * b_y
            wc = (left + 0.5 - x[a]) * c_x + (row + 0.5 - y[a]) * c_y
            for column in range(left, right + 1):
                wa = 1 - wb - wc
                if wa >= 0 and wb >= 0 and wc >= 0:
                    near = wa * ia + wb * ib + wc * ic
                    if near > depth[row, column]:
                        depth[row, column] = near
                        ids[row, column] = t
                        bary[row, column, 0] = wb * ib / near
                        bary[row, column, 1] = wc * ic / near
                wb += b_x
                wc += c_x


@_compiled
def shadow_map(x, y, z, faces, nearest):
    """Least z of triangles under parallel light: (S, S), changed."""
    height, width = nearest.shape
    for t in range(len(faces)):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        left, right, top, bottom, area = _box(x, y, a, b, c, height, width)
        if area == 0 or left > right or top > bottom:
            continue
        b_x, b_y = (y[c] - y[a]) / area, -(x[c] - x[a]) / area
        c_x, c_y = -(y[b] - y[a]) / area, (x[b] - x[a]) / area
        for row in range(top, bottom + 1):
            wb = (left + 0.5 - x[a]) * b_x + (row + 0.5 - y[a]) * b_y
            wc = (left + 0.5 - x[a]) * c_x + (row + 0.5 - y[a]) * c_y
            for column in range(left, right + 1):
                wa = 1 - wb - wc
                if wa >= 0 and wb >= 0 and wc >= 0:
                    nearest[row, column] = min(nearest[row, column], wa * z[a] + wb * z[b] + wc * z[c])
                wb += b_x
                wc += c_x


@_compiled
def point_normals(points, faces):
    """Normals (V, 3) of points (V, 3), of length 1."""
    normals = np.zeros_like(points)
    for t in range(len(faces)):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            normals[corner, 0] += nx
            normals[corner, 1] += ny
            normals[corner, 2] += nz
    for i in range(len(points)):
        normals[i] /= (normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2) ** 0.5 + 1e-12
    return normals


def axes_towards(direction, up=(0.0, 1.0, 0.0)) -> np.ndarray:
    """Rows (3, 3): right, up, and the direction itself, of length 1."""
    forward = np.asarray(direction, float) / np.linalg.norm(direction)
    right = np.cross(up, forward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Matrix (3, 3) that turns about x by the pitch, then y by the yaw, then z by the roll, in radians."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
