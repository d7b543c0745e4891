"""The contract of a distortion, and the colour transforms that several of them need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from components.mask_encoders.base import image_size
from components.prompts import SEVERITIES
from components.registry import Registry

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Float = NDArray[np.float32]

Stage = Literal["optics", "exposure", "sensor", "development", "file"]
STAGES: tuple[Stage, ...] = ("optics", "exposure", "sensor", "development", "file")

GRADES = len(SEVERITIES)
VARIANTS = 4
SETTINGS = GRADES * VARIANTS


class Distortion(ABC):
    """One type of distortion with twenty settings: setting s has severity grade s // 4 and variant s % 4.

    A grade is one word of `prompts.SEVERITIES`. Strengths are in pixels or in 8-bit levels of the image as it is given, so
    that they mean the same for a crop of any size. The output depends on the arguments alone.

    Attributes:
        variants: what the four variants are.
        strengths: per variant, the parameter of each of the five grades, mild to extreme.
        seeded: the variants that draw something; the others are the same for every seed.
        stage: where in a camera it happens, one of `STAGES`: the order in which several are applied.
        develops: whether `develop` can be asked, that is whether it happens in the development of a RAW file.
    """

    variants: ClassVar[tuple[str, str, str, str]]
    strengths: ClassVar[tuple[tuple[float, ...], ...]]
    seeded: ClassVar[tuple[str, ...]] = ()
    stage: ClassVar[Stage] = "development"
    develops: ClassVar[bool] = False

    def __call__(self, image: Image, setting: int, seed: int = 0) -> Image:
        """image (H, W, 3) uint8 -> same shape; `setting` in [0, 20); `seed` is for the variants in `seeded`.

        Raises:
            ValueError: the setting is out of range, or this is no image.
        """
        grade, variant = _grade_and_variant(setting)
        image_size(image)
        return self.apply(image, variant, self.strengths[variant][grade], np.random.default_rng(seed))

    @abstractmethod
    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """The distortion itself: a new array; `image` is left as it is."""

    def developed(self, light: Float, setting: int, seed: int = 0) -> Image:
        """light (H, W, 3) float32, linear, sRGB primaries, 1 = the sensor's white -> (H, W, 3) uint8, distorted while it was developed.

        Raises: see `coded`.
        """
        return to_uint8(self.coded(light, setting, seed))

    def coded(self, light: Float, setting: int, seed: int = 0) -> Float:
        """As `developed`, coded as sRGB in 8-bit levels, which are neither rounded nor clipped, so that more can follow.

        Raises:
            ValueError: the setting is out of range, or this distortion does not happen in the development.
        """
        grade, variant = _grade_and_variant(setting)
        if not self.develops:
            raise ValueError(f"{type(self).__name__} does not happen in the development: apply it to the developed image")
        return self.develop(light, variant, self.strengths[variant][grade], np.random.default_rng(seed))

    def develop(self, light: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
        """The distortion itself: light -> coded values; `light` is left as it is."""
        raise NotImplementedError(f"{type(self).__name__}.develops is set, but it has no develop()")

    @staticmethod
    def severity(setting: int) -> str:
        """The severity word of a setting. Raises ValueError where it is out of range."""
        return SEVERITIES[_grade_and_variant(setting)[0]]

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Options for tests."""
        return {}


def _grade_and_variant(setting: int) -> tuple[int, int]:
    if not 0 <= setting < SETTINGS:
        raise ValueError(f"setting {setting} of a distortion: allowed are 0 to {SETTINGS - 1}")
    return divmod(setting, VARIANTS)


DISTORTIONS: Registry[Distortion] = Registry("distortion", __package__, Distortion)

_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_TO_RGB = np.linalg.inv(_TO_YCC.astype(np.float64)).astype(np.float32)


def to_ycc(image: Image | Float) -> Float:
    """RGB in [0, 255] -> luma in [0, 255] and two colour differences in [-128, 128] (BT.601, full range)."""
    return np.asarray(image, np.float32) @ _TO_YCC.T


def to_rgb(ycc: Float) -> Image:
    """The inverse of `to_ycc`, rounded and clipped to uint8."""
    return to_uint8(coded_rgb(ycc))


def coded_rgb(ycc: Float) -> Float:
    """The inverse of `to_ycc`, neither rounded nor clipped."""
    return ycc @ _TO_RGB.T


def to_uint8(x: Float) -> Image:
    """Rounds and clips to [0, 255]."""
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def to_linear(image: Image | Float) -> Float:
    """sRGB in [0, 255] -> linear light in [0, 1]; what exceeds that is clipped."""
    x = np.clip(np.asarray(image, np.float32) / 255, 0, 1)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


def from_linear(x: Float) -> Image:
    """Linear light -> sRGB uint8; what exceeds [0, 1] is clipped, as a sensor does."""
    return to_uint8(encoded(x))


def encoded(x: Float) -> Float:
    """Linear light -> sRGB in [0, 255], not rounded; what exceeds [0, 1] is clipped."""
    x = np.clip(x, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055) * 255
