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
_AT_ONCE, _TRIES = 64, 1000
"""Routes that are drawn together, and how often before giving up: of those on the Earth about one in ten is taken."""


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


def draw_routes(ground: Map, plan: Plan, count: int, of_test: bool, rng: Rng) -> list[Route]:
    """Routes as long as a reference flight, in the test's area or wholly outside it, above enough land."""
    found = list[Route]()
    for _ in range(_TRIES):
        points, tangents = _wander(_somewhere(plan, _AT_ONCE, rng), plan, rng)
        latitude, _ = to_degrees(points)
        fits = (in_americas(points) == of_test).all(axis=1) & (np.abs(latitude).max(axis=1) <= plan.latitude)
        fits[fits] = ground.is_land(points[fits, ::_FINE]).mean(axis=1) >= plan.land
        found.extend(Route(points[k], tangents[k]) for k in np.flatnonzero(fits))
        if len(found) >= count:
            return found[:count]
    raise imagery.MapError("the reference's map has too little land for routes of this length")


def _somewhere(plan: Plan, count: int, rng: Rng) -> Doubles:
    """Points (count, 3), uniform by area between the latitudes."""
    top = np.sin(np.radians(plan.latitude))
    return from_degrees(np.degrees(np.arcsin(rng.uniform(-top, top, count))), rng.uniform(-180, 180, count))


def _wander(starts: Doubles, plan: Plan, rng: Rng) -> tuple[Doubles, Doubles]:
    """Points and tangents (n, L, 3) of routes that bend: the rate of turning is a line between three random values."""
    count = plan.length * _FINE
    knots = rng.normal(0, plan.bend / count, (len(starts), 3))
    rates = np.stack([np.interp(np.linspace(0, 2, count), [0, 1, 2], values) for values in knots], axis=1)
    points, tangents = [starts], [heading(starts, rng.uniform(0, 360, len(starts)))]
    for rate in rates:
        point, tangent = moved(points[-1], tangents[-1], plan.spacing / _FINE)
        points.append(normalised(point))
        tangents.append(turned(point, tangent, rate))
    return np.stack(points, axis=1), normalised(np.stack(tangents, axis=1))


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


def beside(points: Doubles, tangents: Doubles, plan: Plan, rng: Rng, flights: int = 1) -> tuple[Doubles, Doubles]:
    """Flights that should go along points (n, 3) and go beside them, with their cameras a little turned.

    The points belong to one flight, or each to its own (flights = n).
    """
    aside = rng.choice([-1, 1], flights) * plan.offset + rng.normal(0, plan.wobble, len(points))
    right = right_of(points, tangents)
    shifted, _ = moved(points, right, aside)
    forwards = normalised(tangents - (tangents * shifted).sum(axis=1, keepdims=True) * shifted)
    return shifted, turned(shifted, forwards, rng.normal(0, plan.rotation, flights))


def fly(
    maps: Mapping[str, Map], camera: Camera, plan: Plan, n_references: int, n_queries: int, of_test: bool, rng: Rng
) -> Pairs:
    """Reference flights, and `n_queries` query flights for each, in the weathers by turns."""
    weathers = imagery.weathers(maps)
    references, queries, truth, conditions = [], [], [], list[str]()
    for route in draw_routes(maps[REFERENCE], plan, n_references, of_test, rng):
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
    points = _places(maps[REFERENCE], plan, count, rng)
    tangents = heading(points, rng.uniform(0, 360, count))
    ahead, forwards = moved(points, tangents, rng.uniform(-0.5, 0.5, count) * plan.spacing)
    there, looking = beside(ahead, forwards, plan, rng, flights=count)
    weathers = imagery.weathers(maps)
    chosen = rng.integers(len(weathers), size=count)
    reference = camera.frames(maps[REFERENCE], points, tangents)
    query = np.empty_like(reference)
    for k, weather in enumerate(weathers):
        query[chosen == k] = camera.frames(maps[weather], there[chosen == k], looking[chosen == k])
    return Views(torch.from_numpy(reference), torch.from_numpy(query), torch.from_numpy(points))


def _places(ground: Map, plan: Plan, count: int, rng: Rng) -> Doubles:
    found = list[Doubles]()
    while len(found) < count:
        points = _somewhere(plan, 4 * count, rng)
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
