"""Table tops drawn from noise: wood, carpet, concrete, light wood and sponge, the same on every call."""

from functools import cache

import numpy as np

SIZE = 128  # pixels, both ways; the table's top shows the image once


@cache
def table_top(name: str) -> np.ndarray:
    """The image of a table top, read-only uint8 (SIZE, SIZE, 3).

    Args:
        name: white, wood, carpet, concrete, light_wood or sponge.
    """
    image = np.round(255 * np.clip(_DRAW[name](np.random.RandomState(SIZE)), 0, 1)).astype(np.uint8)
    image.flags.writeable = False
    return image


def _white(random: np.random.RandomState) -> np.ndarray:
    return np.ones((SIZE, SIZE, 3))


def _wood(random: np.random.RandomState) -> np.ndarray:
    """Dark planks, grain along the rows."""
    planks = 4
    row = np.arange(SIZE) * planks // SIZE
    shade = random.uniform(-0.12, 0.12, planks)[row, None]
    shift = random.uniform(0, 1, planks)[row, None]
    rings = _rings(random, count=14, bend=2.0, shift=shift)
    streaks = _noise(random, 1.0, stretch=12)
    level = 0.5 + shade + 0.22 * rings + 0.10 * streaks
    level[np.arange(0, SIZE, SIZE // planks)] = 0.02
    return _blend((0.20, 0.09, 0.04), (0.66, 0.40, 0.20), level)


def _light_wood(random: np.random.RandomState) -> np.ndarray:
    """One pale board, grain along the columns, wide rings."""
    level = 0.5 + 0.25 * _rings(random, count=9, bend=3.0) + 0.10 * _noise(random, 0.8, stretch=16)
    return _blend((0.62, 0.44, 0.24), (0.96, 0.84, 0.62), level.T)


def _carpet(random: np.random.RandomState) -> np.ndarray:
    """Black loops in rows, worn in patches."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    jitter = _noise(random, 1.0)
    loops = np.sin(2 * np.pi * x / 8 + 1.2 * jitter) * np.sin(2 * np.pi * y / 8 + np.pi * (x // 8 % 2))
    level = 0.45 + 0.30 * loops + 0.15 * _noise(random, 1.6) + 0.08 * random.standard_normal((SIZE, SIZE))
    return _blend((0.02, 0.02, 0.03), (0.34, 0.33, 0.32), level)


def _concrete(random: np.random.RandomState) -> np.ndarray:
    """Grey clouds with pits."""
    level = 0.55 + 0.20 * _noise(random, 1.3) + 0.05 * random.standard_normal((SIZE, SIZE))
    level -= 0.45 * _discs(random, count=60, radii=(0.8, 2.0))
    return _blend((0.28, 0.28, 0.27), (0.78, 0.77, 0.74), level)


def _sponge(random: np.random.RandomState) -> np.ndarray:
    """Yellow foam full of dark pores."""
    level = 0.85 + 0.10 * _noise(random, 1.0)
    level -= 0.75 * _discs(random, count=260, radii=(1.0, 4.5))
    return _blend((0.42, 0.28, 0.04), (0.97, 0.82, 0.30), level)


_DRAW = {
    "white": _white,
    "wood": _wood,
    "carpet": _carpet,
    "concrete": _concrete,
    "light_wood": _light_wood,
    "sponge": _sponge,
}


def _noise(random: np.random.RandomState, exponent: float, stretch: float = 1.0) -> np.ndarray:
    """Periodic 1/f^exponent noise of unit variance, features `stretch` times longer along a row."""
    frequency = np.fft.fftfreq(SIZE) * SIZE
    distance = np.hypot(frequency[:, None], stretch * frequency[None, :])
    distance[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal((SIZE, SIZE))) / distance**exponent).real
    return field / field.std()


def _rings(
    random: np.random.RandomState, count: int, bend: float, shift: np.ndarray | float = 0.0
) -> np.ndarray:
    """Bent bands along the rows in [-1, 1], `count` over the image, as a saw cuts growth rings."""
    across = np.arange(SIZE)[:, None] / SIZE
    return np.sin(2 * np.pi * (count * across + shift) + bend * _noise(random, 2.0, stretch=4))


def _discs(random: np.random.RandomState, count: int, radii: tuple[float, float]) -> np.ndarray:
    """How much of each pixel randomly placed discs cover, in [0, 1], wrapping round the border."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    cover = np.zeros((SIZE, SIZE))
    for _ in range(count):
        centre, radius = random.uniform(0, SIZE, 2), random.uniform(*radii)
        dy, dx = ((axis - at + SIZE / 2) % SIZE - SIZE / 2 for axis, at in zip((y, x), centre, strict=True))
        cover = np.maximum(cover, np.clip(radius + 0.5 - np.hypot(dy, dx), 0, 1))
    return cover


def _blend(dark: tuple[float, ...], light: tuple[float, ...], level: np.ndarray) -> np.ndarray:
    """Colours between two RGB ends, (H, W, 3)."""
    return np.asarray(dark) + np.clip(level, 0, 1)[..., None] * (np.asarray(light) - np.asarray(dark))
