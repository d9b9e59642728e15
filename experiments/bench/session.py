"""One run of a suite: options, loaded peers, rows so far, the clock."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from . import machine, packages
from .options import Options
from .packages import PackageT

PlanT = TypeVar("PlanT")
RowT = TypeVar("RowT")


@dataclass
class Session(Generic[PlanT, PackageT, RowT]):
    """The state of a run."""

    options: Options
    plan: PlanT
    loaded: dict[str, PackageT]
    rows: list[RowT] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def out_of_time(self) -> str | None:
        """Why nothing more is to be measured, or None."""
        over = self.elapsed > self.options.minutes * 60
        return f"the {self.options.minutes:g} minutes of the run were over" if over else None

    def say(self, text: str) -> None:
        """Show progress."""
        print(f"[{self.elapsed / 60:5.1f} min] {text}", file=sys.stderr, flush=True)


SessionT = TypeVar("SessionT", bound=Session)


def conduct(
    suite: str,
    options: Options,
    kinds: Sequence[type[PackageT]],
    begin: Callable[[dict[str, PackageT]], SessionT],
    families: Mapping[str, Callable[[SessionT], None]],
) -> dict[str, Any]:
    """Load the peers and measure the families that are asked for.

    Parameters
    ----------
    suite : str
        Its name.
    options : Options
        What the user chose.
    kinds : sequence of types
        The peers.
    begin : callable
        Makes the session of the peers that are to run, and lets their compilers do their work.
    families : mapping
        What there is to measure, in this order; each adds rows to the session.

    Returns
    -------
    dict
        The parts of a report.
    """
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = machine.describe()  # before this run is a load of its own
    loaded, presences = packages.load(kinds)
    session = begin({name: peer for name, peer in loaded.items() if options.wants(name, tuple(loaded))})
    for presence in presences:
        session.say(f"{presence.name} {presence.version or ''}: {presence.missing or 'runs'}")
    for family, measure in families.items():
        if options.wants(family, tuple(families)):
            measure(session)
    return {
        "suite": suite,
        "date": date,
        "seconds": session.elapsed,
        "options": {
            **asdict(options),
            "only": sorted(options.only),
            "out": options.out.name,
            "dilate_repo": options.dilate_repo is not None,  # a path of one machine tells others nothing
        },
        "machine": facts,
        "peers": [asdict(presence) for presence in presences],
        "rows": session.rows,
    }
