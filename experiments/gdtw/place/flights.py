"""Flights over the maps: routes, reference flights along them, and query flights beside them in other weather."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.gdtw.place import imagery
from experiments.gdtw.place.geography import (
    EARTH_RADIUS,
    Doubles,
    from_degrees,
    heading,
    moved,
    normalised,
    right_of,
    to_degrees,
    turned,
)
from experiments.gdtw.place.imagery import REFERENCE, Camera, Map
from experiments.gdtw.place.sequences import PARTS, Data, Pairs, Sequences, Views

Rng = np.random.Generator

PAPER_SPACING, PAPER_TOLERANCES = 5, (2, 3, 5, 10)
"""Metres, of the paper's cars: the flights' tolerances are these by the ratio of the spacings."""

_FINE = 10
"""Points of a route between two frames."""
_TRIES = 10_000
"""To find a route above enough land; on the Earth about fifty do."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How flights go.

    Attributes
    ----------
    spacing : float
        km between the frames of a reference flight.
    reference_frames, query_frames : int
        Frames of each.
    paces : tuple of float
        Lowest and highest mean speed of a query flight, in reference frames per frame.
    speed_deviation : float
        Of the logarithm of a query's speed, frame by frame; neighbouring frames correlate by 1/2.
    offset, wobble : float
        km to the left or right of the route, and its deviation frame by frame.
    rotation : float
        Degrees: deviation of the angle between camera and route, one for each flight.
    bend : float
        Degrees: deviation of a route's turn over the length of a reference flight.
    latitude : float
        Routes keep between this and its negative.
    land : float
        Least share of a route above land.
    """

    spacing: float = 100.0
    reference_frames: int = 25
    query_frames: int = 10
    paces: tuple[float, float] = (1.0, 2.0)
    speed_deviation: float = 0.35
    offset: float = 20.0
    wobble: float = 4.0
    rotation: float = 5.0
    bend: float = 60.0
    latitude: float = 62.0
    land: float = 0.7

    @property
    def length(self) -> int:
        """Spacings from the first to the last frame of a reference."""
        return self.reference_frames - 1


@dataclasses.dataclass(frozen=True)
class Route:
    """Points (n, 3) and unit tangents along them, `spacing / 10` km from each other."""

    points: Doubles
    tangents: Doubles

    def at(self, index: Doubles) -> tuple[Doubles, Doubles]:
        """Positions and tangents at frames of the reference, fractions allowed."""
        fine = np.clip(np.asarray(index) * _FINE, 0, len(self.points) - 1)
        before = np.minimum(fine.astype(np.int64), len(self.points) - 2)
        share = (fine - before)[..., None]
        point = normalised((1 - share) * self.points[before] + share * self.points[before + 1])
        tangent = (1 - share) * self.tangents[before] + share * self.tangents[before + 1]
        return point, normalised(tangent - (tangent * point).sum(axis=-1, keepdims=True) * point)


# --- Where routes are -------------------------------------------------------------------------------------------------


def in_americas(points: Doubles) -> NDArray[np.bool_]:
    """Between 170 and 30 degrees west: the test's half of the land."""
    _, longitude = to_degrees(points)
    return (longitude > -170) & (longitude < -30)


def draw_route(ground: Map, plan: Plan, of_test: bool, rng: Rng) -> Route:
    """A route as long as a reference flight, in the test's area or wholly outside it, above enough land."""
    for _ in range(_TRIES):
        start = _somewhere(plan, rng)
        if in_americas(start) != of_test:
            continue
        route = _wander(start, plan, rng)
        latitude, _ = to_degrees(route.points)
        inside = in_americas(route.points)
        if np.abs(latitude).max() > plan.latitude or not (inside if of_test else ~inside).all():
            continue
        if ground.is_land(route.points[::_FINE]).mean() >= plan.land:
            return route
    raise imagery.MapError("the reference's map has too little land for routes of this length")


def _somewhere(plan: Plan, rng: Rng) -> Doubles:
    """A point, uniform by area between the latitudes."""
    top = np.sin(np.radians(plan.latitude))
    return from_degrees(np.degrees(np.arcsin(rng.uniform(-top, top))), rng.uniform(-180, 180))


def _wander(start: Doubles, plan: Plan, rng: Rng) -> Route:
    """A route that bends: its rate of turning is a line between three random values."""
    count = plan.length * _FINE
    rates = np.interp(np.linspace(0, 2, count), [0, 1, 2], rng.normal(0, plan.bend / count, 3))
    points, tangents = [start], [heading(start, rng.uniform(0, 360))]
    for rate in rates:
        point, tangent = moved(points[-1], tangents[-1], plan.spacing / _FINE)
        points.append(normalised(point))
        tangents.append(turned(point, tangent, rate))
    return Route(np.stack(points), normalised(np.stack(tangents)))


# --- Flights ----------------------------------------------------------------------------------------------------------


def draw_progress(plan: Plan, rng: Rng) -> Doubles:
    """Where on its route a query flight takes its frames, in frames of the reference: rising, inside its ends."""
    while True:
        noise = rng.normal(0, 1, plan.query_frames - 1)
        for k in range(1, len(noise)):
            noise[k] = 0.5 * noise[k - 1] + np.sqrt(0.75) * noise[k]
        steps = rng.uniform(*plan.paces) * np.exp(plan.speed_deviation * noise)
        if steps.sum() <= plan.length:
            start = rng.uniform(0, plan.length - steps.sum())
            return start + np.concatenate([[0.0], steps.cumsum()])


def beside(points: Doubles, tangents: Doubles, plan: Plan, rng: Rng) -> tuple[Doubles, Doubles]:
    """The flight that should go along points (n, 3) and goes beside them, with the camera a little turned."""
    aside = rng.choice([-1, 1]) * plan.offset + rng.normal(0, plan.wobble, len(points))
    right = right_of(points, tangents)
    shifted, _ = moved(points, right, aside)
    forwards = normalised(tangents - (tangents * shifted).sum(axis=1, keepdims=True) * shifted)
    return shifted, turned(shifted, forwards, rng.normal(0, plan.rotation))


def fly(
    maps: Mapping[str, Map], camera: Camera, plan: Plan, n_references: int, n_queries: int, of_test: bool, rng: Rng
) -> Pairs:
    """Reference flights, and `n_queries` query flights for each, in the weathers by turns."""
    weathers = imagery.weathers(maps)
    references, queries, truth, conditions = [], [], [], list[str]()
    for _ in range(n_references):
        route = draw_route(maps[REFERENCE], plan, of_test, rng)
        points, tangents = route.at(np.arange(plan.reference_frames, dtype=np.float64))
        references.append((points, camera.frames(maps[REFERENCE], points, tangents)))
        for _ in range(n_queries):
            weather = weathers[len(conditions) % len(weathers)]
            progress = draw_progress(plan, rng)
            points, tangents = beside(*route.at(progress), plan, rng)
            queries.append((points, camera.frames(maps[weather], points, tangents)))
            truth.append(progress)
            conditions.append(weather)
    return Pairs(
        _held(queries),
        _held(references),
        torch.arange(n_references).repeat_interleave(n_queries),
        torch.from_numpy(np.stack(truth)),
        tuple(conditions),
    )


def _held(flown: list[tuple[Doubles, imagery.Bytes]]) -> Sequences:
    """Sequences whose frames are in memory."""
    frames = torch.from_numpy(np.stack([frames for _, frames in flown]))
    return Sequences(
        torch.from_numpy(np.stack([points for points, _ in flown])), lambda numbers: frames[torch.tensor(numbers)]
    )


def look_twice(maps: Mapping[str, Map], camera: Camera, plan: Plan, count: int, rng: Rng) -> Views:
    """Random places above land outside the test's area, as a reference and as a query flight would see them.

    The query is up to half a spacing ahead or behind, so that any reference frame's nearest queries are its positives.
    """
    weathers = imagery.weathers(maps)
    points = _places(maps[REFERENCE], plan, count, rng)
    tangents = heading(points, rng.uniform(0, 360, count))
    ahead, forwards = moved(points, tangents, rng.uniform(-0.5, 0.5, count) * plan.spacing)
    near = [beside(ahead[k : k + 1], forwards[k : k + 1], plan, rng) for k in range(count)]
    seen = [camera.frames(maps[weathers[rng.integers(len(weathers))]], *one) for one in near]
    return Views(
        torch.from_numpy(camera.frames(maps[REFERENCE], points, tangents)),
        torch.from_numpy(np.concatenate(seen)),
        torch.from_numpy(points),
    )


def _places(ground: Map, plan: Plan, count: int, rng: Rng) -> Doubles:
    found = list[Doubles]()
    while len(found) < count:
        points = np.stack([_somewhere(plan, rng) for _ in range(4 * count)])
        found.extend(points[~_near_americas(points, plan) & ground.is_land(points)])
    return np.stack(found[:count])


def _near_americas(points: Doubles, plan: Plan) -> NDArray[np.bool_]:
    """Whether a frame around the point may show a part of the test's area."""
    _, longitude = to_degrees(points)
    margin = np.degrees(5 * plan.spacing / EARTH_RADIUS) / np.cos(np.radians(plan.latitude))
    return (longitude > -170 - margin) & (longitude < -30 + margin)


def load(
    maps: Mapping[str, Map], camera: Camera, plan: Plan, n_references: Mapping[str, int], n_queries: int, seed: int
) -> Data:
    """The three parts, and views for contrastive training. The same seed gives the same flights."""
    streams = np.random.default_rng(seed).spawn(len(PARTS))
    parts = {
        part: fly(maps, camera, plan, n_references[part], n_queries, part == "test", stream)
        for part, stream in zip(PARTS, streams, strict=True)
    }
    tolerances = tuple(tolerance * plan.spacing / PAPER_SPACING for tolerance in PAPER_TOLERANCES)
    return Data(
        parts, lambda count, rng: look_twice(maps, camera, plan, count, rng), plan.spacing, "km", 1.0, tolerances
    )
