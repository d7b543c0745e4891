"""Blur: Gaussian, out of focus, motion, and lost resolution."""

from __future__ import annotations

from typing import Literal

import numpy as np
import PIL.Image
from scipy import ndimage

from datamodules.distortions.base import DISTORTIONS, Distortion, Float, Image, encoded, to_uint8


@DISTORTIONS.register("blur")
class Blur(Distortion):
    """Strengths: standard deviation, disc radius, trail length, reduction factor; all in pixels."""

    variants = ("gaussian", "defocus", "motion", "resample")
    strengths = (
        (0.9, 1.4, 2.1, 3.2, 4.8),
        (1.5, 2.3, 3.5, 5.0, 7.5),
        (4.0, 7.0, 11.0, 16.0, 24.0),
        (1.9, 2.7, 3.8, 5.5, 8.0),
    )
    seeded = ("motion",)  # its direction
    stage = "optics"
    develops = True

    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """Edges of the image are continued by reflection."""
        if variant == 3:
            height, width = image.shape[:2]
            small = PIL.Image.fromarray(image).resize(
                (max(1, round(width / strength)), max(1, round(height / strength))), PIL.Image.Resampling.BOX
            )
            return np.array(small.resize((width, height), PIL.Image.Resampling.BICUBIC))
        return to_uint8(_blurred(image.astype(np.float32), variant, strength, rng))

    def develop(self, light: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
        """In coded values, in which its strengths were graded; a lens blurs the light, and highlights spread."""
        return _blurred(encoded(light), variant, strength, rng)


def _blurred(x: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
    """(H, W, 3) in [0, 255]."""
    if variant == 0:
        return np.asarray(ndimage.gaussian_filter(x, (strength, strength, 0), mode="reflect"), np.float32)
    if variant == 3:
        height, width = x.shape[:2]
        smaller = max(1, round(width / strength)), max(1, round(height / strength))
        planes = [PIL.Image.fromarray(plane).resize(smaller, PIL.Image.Resampling.BOX) for plane in np.moveaxis(x, 2, 0)]
        return np.stack([np.asarray(plane.resize((width, height), PIL.Image.Resampling.BICUBIC)) for plane in planes], -1)
    return _convolve(x, _disc(strength) if variant == 1 else _trail(strength, rng.uniform(0, np.pi)))


def _disc(radius: float) -> Float:
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def _trail(length: float, angle: float) -> Float:
    reach = int(np.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for t in np.linspace(-length / 2, length / 2, 8 * reach + 1):
        x, y = reach + t * np.cos(angle), reach + t * np.sin(angle)
        column, row = min(int(x), 2 * reach - 1), min(int(y), 2 * reach - 1)
        fx, fy = x - column, y - row
        kernel[row : row + 2, column : column + 2] += np.outer((1 - fy, fy), (1 - fx, fx))
    return (kernel / kernel.sum()).astype(np.float32)


def _convolve(image: Float, kernel: Float) -> Float:
    """(H, W, 3) with a small kernel, by FFT on the reflected image; the kernel is symmetric under a half turn."""
    reach = kernel.shape[0] // 2
    mode: Literal["symmetric", "edge"] = "symmetric" if min(image.shape[:2]) > reach else "edge"
    padded = np.pad(np.moveaxis(image, 2, 0), ((0, 0), (reach, reach), (reach, reach)), mode=mode)  # (3, H + 2 reach, W + 2 reach)
    shape = padded.shape[1:]
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(kernel, shape), shape)[:, 2 * reach :, 2 * reach :]
    return np.ascontiguousarray(np.moveaxis(blurred, 0, 2), np.float32)
