"""Run the experiment: `python -m experiments.gdtw place`."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import Any

import torch

from experiments.bench import machine
from experiments.gdtw.place import contrastive, flights, imagery, networks, plots, robotcar, tables, tuning
from experiments.gdtw.place.alignment import ALIGNERS
from experiments.gdtw.place.imagery import MapError
from experiments.gdtw.place.networks import Encoder
from experiments.gdtw.place.robotcar import RobotCarError
from experiments.gdtw.place.sequences import Data
from experiments.gdtw.place.settings import Settings, parse
from experiments.softdtw.store import Numbers, Store

BASE = "base"
RECALL_PLACES = 200


def run(settings: Settings) -> Store:
    """Train and evaluate what is chosen and not yet done, then write tables and pictures."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)  # Adam's averages of vanishing gradients, in slow motion otherwise
    store = Store(settings.out, settings.as_dict(), machine.describe())
    data = load(settings)
    if not store.has("place", BASE) or not network_path(settings, BASE).is_file():
        keep(train_base(data, settings), BASE, store, data, settings)
    for method in settings.methods:
        if store.has("place", method):
            continue
        encoder = restored(BASE, settings)
        reg_weight = store.content["entries"]["place"][BASE]["reg_weight"]
        course = tuning.tune(encoder, method, data, settings.scale.tuning, reg_weight, settings.seed)
        curves = {"validation": rounded(course.validation), "losses": rounded(course.losses)}
        keep((encoder, {**curves, "seconds": course.seconds}), method, store, data, settings)
        tables.write(store.content, facts(data), settings.out)
    tables.write(store.content, facts(data), settings.out)
    plots.draw(store.content, data, settings.out)
    return store


def load(settings: Settings) -> Data:
    """Flights over maps, or the folders of a dataset."""
    if settings.robotcar is not None:
        return robotcar.load(settings.robotcar, settings.reference, settings.layout, settings.seed)
    scale = settings.scale
    counts = {"train": scale.n_train, "validation": scale.n_validation, "test": scale.n_test}
    return flights.load(
        imagery.load(settings.maps), scale.camera, settings.plan, counts, scale.n_queries, settings.seed
    )


# --- Networks ---------------------------------------------------------------------------------------------------------


def make_encoder(settings: Settings) -> Encoder:
    """The network before any training of ours."""
    torch.manual_seed(settings.seed)
    scale, vgg16 = settings.scale, settings.vgg16
    trunk = networks.SmallCNN(scale.channels) if vgg16 is None else networks.load_vgg16(vgg16)
    return Encoder(trunk, scale.clusters)


def train_base(data: Data, settings: Settings) -> tuple[Encoder, Numbers]:
    """Contrastive training, then the choice of lambda."""
    encoder = make_encoder(settings)
    started = time.process_time()
    losses = contrastive.train(encoder, data, settings.scale.contrast, settings.seed)
    numbers: Numbers = {
        "losses": rounded(losses),
        "seconds": time.process_time() - started,
        "date": datetime.date.today().isoformat(),
        "parameters": networks.count(encoder),
        "recall": contrastive.recall(encoder, data, RECALL_PLACES, settings.seed),
    }
    pace = data.parts["train"].pace
    tried = tuning.choose_reg_weight(encoder, data.parts["validation"], pace, settings.scale.reg_weights)
    numbers["reg_weights"] = {f"{weight:g}": round(error, 6) for weight, error in tried.items()}
    numbers["reg_weight"] = min(tried, key=lambda weight: tried[weight])
    known = tuning.pair_errors(data.parts["test"].truth, data.parts["test"])
    numbers["known"] = rounded_rows(known)
    return encoder, numbers


def network_path(settings: Settings, name: str) -> Path:
    """Where a trained network is kept."""
    return settings.out / "networks" / f"{name.replace(' ', '_')}.pt"


def restored(name: str, settings: Settings) -> Encoder:
    """A kept network."""
    encoder = make_encoder(settings)
    encoder.load_state_dict(torch.load(network_path(settings, name), weights_only=True))
    return encoder.eval()


def keep(trained: tuple[Encoder, Numbers], name: str, store: Store, data: Data, settings: Settings) -> None:
    """Evaluate a network on the test pairs; keep it and its numbers."""
    encoder, numbers = trained
    base = numbers if name == BASE else store.content["entries"]["place"][BASE]
    test = data.parts["test"]
    index = tuning.predict(encoder, test, ALIGNERS, data.parts["train"].pace, base["reg_weight"])
    numbers["seconds"] = round(numbers["seconds"], 1)
    numbers["conditions"] = list(test.conditions)
    drawn = "GDTW" if name == BASE else tuning.ALIGNED_BY[name]
    numbers["index"] = {drawn: rounded_rows(index[drawn])}
    numbers["errors"] = {aligner: rounded_rows(tuning.pair_errors(rows, test)) for aligner, rows in index.items()}
    path = network_path(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(encoder.state_dict(), path)
    store.add("place", name, numbers)
    print(tables.summary(name, numbers, data.unit, data.unit_km), flush=True)


def rounded(values: list[float], digits: int = 5) -> list[float]:
    """Numbers as results.json keeps them."""
    return [float(f"{value:.{digits}g}") for value in values]


def rounded_rows(values: torch.Tensor) -> list[list[float]]:
    """Rows of a tensor as results.json keeps them."""
    return [rounded(row, 4) for row in values.tolist()]


# --- Report -----------------------------------------------------------------------------------------------------------


def facts(data: Data) -> dict[str, Any]:
    """What tables say of the data."""
    return {
        "pairs": {part: len(pairs) for part, pairs in data.parts.items()},
        "pace": data.parts["train"].pace,
        "unit": data.unit,
        "unit_km": data.unit_km,
        "tolerances": data.tolerances,
    }


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, and print the tables."""
    settings = parse(arguments)
    try:
        store = run(settings)
    except (MapError, RobotCarError, ValueError) as error:
        sys.exit(str(error))
    text = (settings.out / "results.md").read_text(encoding="utf-8")
    print(f"\n{text}\nTables, pictures and numbers: {store.path.parent.resolve()}")


if __name__ == "__main__":
    main()
