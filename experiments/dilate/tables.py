"""From the errors of each network to the tables, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_ind

from experiments.dilate import paper
from experiments.dilate.data import DATA, SYNTHETIC, least_squared_error
from experiments.dilate.evaluation import MEASURES
from experiments.dilate.networks import NETWORKS
from experiments.dilate.settings import SWEEP, method
from experiments.dilate.training import DILATE, LOSSES
from experiments.softdtw.tables import table

Content = Mapping[str, Any]

NETWORK_NAMES = {"mlp": "MLP", "gru": "GRU encoder and decoder"}
LOSS_NAMES = {"mse": "MSE", "softdtw": "soft-DTW", "dilate": "DILATE"}
MEASURE_NAMES = {"mse": "MSE", "dtw": "DTW", "tdi": "TDI"}

SIGNIFICANT = 0.05
"""Level of Student's t-test, as in the paper."""


# --- Numbers ----------------------------------------------------------------------------------------------------------


def values(content: Content, data: str, network: str, name: str, measure: str) -> list[float]:
    """One for each seed."""
    entries = content["entries"].get(data, {})
    return [entry[measure] for key, entry in entries.items() if key.rpartition(" ")[0] == f"{network} {name}"]


def methods(content: Content, data: str) -> list[str]:
    """Names of the three losses on this source."""
    return [method(loss, content["settings"]["alphas"][data]) for loss in LOSSES]


def best(found: Mapping[str, Sequence[float]]) -> set[str]:
    """The name with the lowest mean, and those that do not differ from it significantly."""
    first = min(found, key=lambda name: float(np.mean(found[name])))
    return {name for name in found if name == first or not _differs(found[name], found[first])}


def _differs(a: Sequence[float], b: Sequence[float]) -> bool:
    """By Student's t-test; without a spread, one seed say, any difference counts."""
    if min(len(a), len(b)) < 2 or np.ptp(a) + np.ptp(b) == 0:
        return True
    return float(ttest_ind(a, b).pvalue) < SIGNIFICANT


def sources(content: Content) -> list[str]:
    """Those that networks were trained on."""
    return [name for name in DATA if content["entries"].get(name)]


# --- Markdown ---------------------------------------------------------------------------------------------------------


def write(content: Content, folder: Path) -> Path:
    """Write results.md."""
    path = folder / "results.md"
    path.write_text(markdown(content), encoding="utf-8")
    return path


def markdown(content: Content) -> str:
    """The whole report."""
    parts = [_heading(content), *(_errors(content, name) for name in sources(content)), _sweep(content)]
    return "\n".join([*(part for part in parts if part), _tasks(content)])


def _heading(content: Content) -> str:
    settings, machine = content["settings"], content["machine"]
    hidden = ", ".join(f"{NETWORK_NAMES[name]} {units}" for name, units in settings["hidden"].items())
    threads = machine["dalign"]["threads"]
    return (
        f"# Forecasts of shape and time, scale {settings['scale']}\n\n"
        "Networks trained with the mean squared error, soft-DTW and DILATE, judged on the test part by MSE, DTW (with "
        "the root) and TDI (squared), which are multiplied as in the DILATE paper; mean ± standard deviation over the "
        "seeds. Bold: the best loss for this network, and those that Student's t-test (level 0.05) does not tell from "
        "it.\n\n"
        f"Hidden units: {hidden}. Adam, rate {settings['learning_rate']:g} for all losses, batches of "
        f"{settings['batch_size']}, at most {settings['epochs']} epochs; the weights with the lowest validation loss "
        f"(the loss that is trained with) are used, and {settings['patience']} epochs without a lower one end a "
        f"training. gamma {settings['gamma']:g}. All but the synthetic series are normalised by mean and deviation of "
        "the training part, and errors are in these units.\n\n"
        f"{machine['cpu']}, {threads} thread{'s' if threads > 1 else ''}, torch {machine['packages'].get('torch')}, "
        f"float32; {_seconds(content) / 60:.0f} minutes of CPU time; other programs ran beside it (load "
        f"{machine['load_before'][0]} at the start). Made by `python -m experiments.dilate --scale "
        f"{settings['scale']}`.\n"
    )


def _seconds(content: Content) -> float:
    return sum(entry["seconds"] for name in sources(content) for entry in content["entries"][name].values())


NOTES = {
    SYNTHETIC: "In brackets the paper's figures ({source}; ten networks). Its series have other random numbers, and by "
    "the text Gaussian noise of variance 0.01; ours have the uniform noise up to 0.01 of the authors' program. Its "
    "networks have 128 units and at most 1000 epochs. No forecast can expect an MSE below {floor:.2f}, as the time of "
    "the step is random.",
    "ECG5000": "In brackets the paper's figures ({source}; ten networks). Its series are the same; that a fifth of the "
    "training part is for validation is our choice. DTW is printed times 10 there, other than the caption says.",
    "pulse": "A pressure wave that hardly changes from beat to beat.",
    "ECG200": "z-normalised over the whole heartbeat by the archive, future included.",
    "ItalyPowerDemand": "z-normalised over the whole day by the archive, future included.",
    "weather": "Temperatures of one and a half years: the three parts are different seasons.",
}


def _errors(content: Content, data: str) -> str:
    """The table of one source: a row for each measure, a column for each network and loss."""
    facts, alpha = content["entries"]["tasks"][data], content["settings"]["alphas"][data]
    networks = [name for name in NETWORKS if any(values(content, data, name, m, "mse") for m in methods(content, data))]
    heads = [f"{_short(name)}: {LOSS_NAMES[loss]}" for name in networks for loss in LOSSES]
    rows = []
    for measure in MEASURES:
        factor = paper.factors(data)[measure]
        naive = _spread([factor * facts["last_value"][measure]])
        cells = [cell for name in networks for cell in _cells(content, data, name, measure)]
        rows.append([f"{MEASURE_NAMES[measure]} x {factor}", *cells, naive])
    n_seeds = max(len(values(content, data, name, m, "mse")) for name in networks for m in methods(content, data))
    note = NOTES[data].format(source=paper.SOURCE, floor=100 * least_squared_error())
    size = f"{facts['n_seen']} frames seen, {facts['n_future']} forecast; {_seeds(n_seeds)}; alpha {alpha:g}"
    return f"## {data}\n\n{size}. {note}\n\n{table(['', *heads, 'last value'], rows)}"


def _cells(content: Content, data: str, network: str, measure: str) -> list[str]:
    """Ours for each loss, and in brackets the paper's where it has them."""
    factor = paper.factors(data)[measure]
    found = dict(zip(LOSSES, (values(content, data, network, m, measure) for m in methods(content, data)), strict=True))
    winners = best({name: numbers for name, numbers in found.items() if numbers})
    cells = []
    for loss, numbers in found.items():
        cell = _spread([factor * number for number in numbers]) if numbers else "-"
        cell = f"**{cell}**" if loss in winners else cell
        theirs = paper.TABLE.get(data, {}).get(network, {}).get(measure, {}).get(loss)
        cells.append(cell if theirs is None else f"{cell} ({theirs})")
    return cells


def _spread(numbers: Sequence[float]) -> str:
    """Mean ± standard deviation, to three digits of the mean."""
    mean = float(np.mean(numbers))
    digits = _digits(mean)
    deviation = f" ± {np.std(numbers, ddof=1):.{digits}f}" if len(numbers) > 1 else ""
    return f"{mean:.{digits}f}{deviation}"


def _digits(value: float) -> int:
    """Decimals that make three digits of it."""
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3


def _sweep(content: Content) -> str:
    """Errors on the synthetic series by alpha, where there is more than one."""
    rows, counts = [], set()
    for alpha in SWEEP:
        found = {
            (network, measure): values(content, SYNTHETIC, network, method(DILATE, alpha), measure)
            for network in NETWORKS
            for measure in MEASURES
        }
        if any(found.values()):
            rows.append([f"{alpha:g}", *(_times(measure, numbers) for (_, measure), numbers in found.items())])
            counts |= {len(numbers) for numbers in found.values()} - {0}
    if len(rows) < 2:
        return ""
    heads = [f"{_short(name)}: {MEASURE_NAMES[m]} x {paper.FACTORS[m]}" for name in NETWORKS for m in MEASURES]
    return (
        f"## DILATE's alpha\n\nSynthetic series, {_seeds(min(counts))}, but {_seeds(max(counts))} for the alpha of the "
        "table above. At 1 DILATE is soft-DTW, at 0 the time alone.\n\n" + table(["alpha", *heads], rows)
    )


def _times(measure: str, numbers: Sequence[float]) -> str:
    return _spread([paper.FACTORS[measure] * number for number in numbers]) if numbers else "-"


def _short(network: str) -> str:
    return NETWORK_NAMES[network].split()[0]


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _tasks(content: Content) -> str:
    """Sizes and times."""
    rows = []
    for name in sources(content):
        facts, entries = content["entries"]["tasks"][name], content["entries"][name]
        seconds = sum(entry["seconds"] for entry in entries.values())
        sizes = " / ".join(map(str, facts["sizes"]))
        rows.append([name, sizes, str(facts["n_seen"]), str(facts["n_future"]), str(len(entries)), f"{seconds:.0f}"])
    heads = ["source", "train / validation / test", "seen", "forecast", "networks", "CPU time, s"]
    return "## Sources\n\n" + table(heads, rows)
