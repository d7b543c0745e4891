"""Images with the statistics of photographs, made from nothing but a seed.

Dead leaves (Lee, Mumford and Huang 2001): opaque shapes of random place and colour, whose radii follow a power law, hide one
another. That gives the edges, flat parts and scale invariance of natural scenes; each leaf further has a texture with a 1/f
spectrum, a shading, and the whole is softened a little, as a lens does.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from datamodules.distortions.base import to_rgb

_SUPER = 2  # leaves are drawn at twice the size, then averaged: their edges are anti-aliased


def dead_leaves(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A (size, size, 3) uint8 image; the same generator state gives the same image."""
    canvas = size * _SUPER
    count = int(rng.integers(60, 420))
    smallest, largest = 0.012 * canvas, rng.uniform(0.25, 0.6) * canvas
    exponent = rng.uniform(2.0, 3.2)
    u = rng.random(count)
    power = 1 - exponent
    radii = (smallest**power + u * (largest**power - smallest**power)) ** (1 / power)
    radii = np.sort(radii)[::-1] if rng.random() < 0.5 else radii  # sometimes the small ones all lie on top
    ids = Image.new("I", (canvas, canvas), 0)
    draw = ImageDraw.Draw(ids)
    for leaf, (radius, x, y) in enumerate(zip(radii, rng.uniform(0, canvas, count), rng.uniform(0, canvas, count), strict=True), 1):
        _leaf(draw, leaf, float(radius), float(x), float(y), rng)
    labels = np.array(ids)
    palette = _palette(count + 1, rng)
    ycc = sum(palette[labels[y::_SUPER, x::_SUPER]] for y in range(_SUPER) for x in range(_SUPER)) / np.float32(_SUPER**2)
    _texture(ycc, labels[::_SUPER, ::_SUPER], count + 1, rng)
    softness = rng.uniform(0.0, 0.7)
    return to_rgb(ndimage.gaussian_filter(ycc, (softness, softness, 0)).astype(np.float32))


def _leaf(draw: ImageDraw.ImageDraw, leaf: int, radius: float, x: float, y: float, rng: np.random.Generator) -> None:
    shape = rng.integers(3)
    if shape == 0:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=leaf)
        return
    corners = int(rng.integers(3, 7)) if shape == 1 else 14
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius * (1.0 if shape == 1 else rng.uniform(0.55, 1.1, corners))
    stretch, turn = rng.uniform(0.3, 1.0), rng.uniform(0, 2 * np.pi)
    px, py = reach * np.cos(angles), stretch * reach * np.sin(angles)
    points = np.stack([x + px * np.cos(turn) - py * np.sin(turn), y + px * np.sin(turn) + py * np.cos(turn)], 1)
    draw.polygon(points.ravel().tolist(), fill=leaf)


def _palette(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(count, 3) luma and colour differences around a common tone, most of them muted, as in photographs."""
    luma = rng.normal(rng.uniform(70, 180), rng.uniform(30, 60), count)
    chroma = np.abs(rng.normal(0, rng.uniform(8, 34), count))
    hue = rng.uniform(0, 2 * np.pi) + rng.normal(0, rng.uniform(0.3, 2.5), count)
    return np.stack([np.clip(luma, 8, 245), chroma * np.cos(hue), chroma * np.sin(hue)], 1).astype(np.float32)


def _texture(ycc: NDArray[np.float32], labels: NDArray[np.int32], count: int, rng: np.random.Generator) -> None:
    """Adds to each leaf its own share of two 1/f fields, and a slow shading over the whole; in place."""
    size = labels.shape[0]
    fine, coarse = _field(size, rng.uniform(0.95, 1.35), rng), _field(size, rng.uniform(1.3, 2.0), rng)
    loud = np.abs(rng.normal(0, rng.uniform(2, 18), count)).astype(np.float32)
    soft = np.abs(rng.normal(0, rng.uniform(3, 22), count)).astype(np.float32)
    ycc[..., 0] += loud[labels] * fine + soft[labels] * coarse
    ycc[..., 0] += rng.uniform(0, 26) * _field(size, 2.6, rng)
    ycc[..., 1:] += (0.25 * soft[labels] * coarse)[..., None] * rng.normal(0, 0.6, 2).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _frequencies(size: int) -> NDArray[np.float64]:
    """(size, size // 2 + 1) cycles per pixel of a real transform; 1 for the mean, which has none."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = 1
    return f


def _field(size: int, slope: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random (size, size) field of unit variance whose amplitude spectrum falls as 1 / f^slope."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), np.float32)) / _frequencies(size) ** slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (size, size))
    return (field / field.std()).astype(np.float32)
