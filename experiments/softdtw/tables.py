"""From the numbers of each set to the paper's tables, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from experiments.softdtw import paper
from experiments.softdtw.settings import EUCLIDEAN, EXPERIMENTS, GAMMAS, STARTS, soft

Entries = Mapping[str, Mapping[str, Any]]
Content = Mapping[str, Any]

START_NAMES = {"random": "random start", "euclidean": "Euclidean start"}
COMPETITORS = {"dba": "DBA", "subgradient": "the subgradient method"}
JUDGES = {"dtw": "DTW", "euclidean": "Euclidean"}


# --- Numbers ----------------------------------------------------------------------------------------------------------


def losses_of(entry: Mapping[str, Any], start: str, method: str) -> float:
    """Mean loss over the draws."""
    return float(np.mean(entry["losses"][start][method]))


def win_rate(entries: Entries, start: str, competitor: str, gamma: float) -> float:
    """Percentage of the sets on which soft-DTW has the lower loss; an equal one is no win."""
    wins = [losses_of(entry, start, soft(gamma)) < losses_of(entry, start, competitor) for entry in entries.values()]
    return 100 * float(np.mean(wins))


def average_ranks(entries: Entries, judge: str, start: str) -> dict[str, float]:
    """By training loss, its rank (1: best; equal ones share theirs), averaged over the sets."""
    names = list(next(iter(entries.values()))[judge][start])
    ranks = [rankdata([entry[judge][start][name] for name in names]) for entry in entries.values()]
    return dict(zip(names, map(float, np.mean(ranks, axis=0)), strict=True))


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(content: Content) -> str:
    """The whole report."""
    entries = content["entries"]
    sections = [SECTIONS[name](entries[name]) for name in EXPERIMENTS if entries.get(name)]
    return "\n".join([_heading(content), *sections, _sets(entries)])


def write(content: Content, folder: Path) -> Path:
    """Write results.md."""
    path = folder / "results.md"
    path.write_text(markdown(content), encoding="utf-8")
    return path


def _heading(content: Content) -> str:
    settings, machine = content["settings"], content["machine"]
    versions = machine["packages"]
    lines = [
        f"# Soft-DTW: the paper's tables, scale {settings['scale']}",
        "",
        f"In each cell: ours, and in brackets the figure of the paper ({paper.SOURCE}). Ours ran on fewer sets, so "
        "the two stand beside each other for orientation: with n sets a percentage moves in steps of 100 / n.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, torch {versions.get('torch')}, float64; seed {settings['seed']}; "
        f"{_minutes(content['entries']):.0f} minutes on {_threads(machine)}. "
        f"Made by `python -m experiments.softdtw --scale {settings['scale']}`.",
        "",
        _protocol(settings),
        "",
    ]
    return "\n".join(lines)


def _minutes(entries: Mapping[str, Entries]) -> float:
    """Computing time of all experiments."""
    return sum(float(entry["seconds"]) for found in entries.values() for entry in found.values()) / 60


def _threads(machine: Mapping[str, Any]) -> str:
    count = machine["dalign"]["threads"]
    return "1 thread" if count == 1 else f"{count} threads"


def _protocol(settings: Mapping[str, Any]) -> str:
    """What was done, with the numbers of this run."""
    clustered = "all" if settings["kmeans_series"] is None else f"at most {settings['kmeans_series']}"
    longest = settings["longest"]
    shortened = (
        "No series was shortened."
        if longest is None
        else f"Sets with series longer than {longest} were resampled to at most {longest} frames, except for 1-NN."
    )
    return (
        f"Barycenters: {settings['draws']} times a random class and {settings['n_series']} of its series, all where it "
        f"has fewer; at most {settings['iterations']} iterations; loss averaged over the draws. k-means: {clustered} "
        f"training series, as many clusters as classes, at most {settings['kmeans_rounds']} rounds with at most "
        f"{settings['kmeans_iterations']} iterations for a centre. Prediction: {settings['hidden_units']} hidden "
        f"units, {settings['updates']} updates by Adam (rate {settings['learning_rate']:g}) with batches of "
        f"{settings['batch_size']}. Series are z-normalised; those of a set with different lengths are resampled to "
        f"their median length for prediction alone. {shortened}"
    )


def _wins(title: str, figures: Mapping[str, Mapping[float, paper.Columns]]) -> Callable[[Entries], str]:
    """A section with a table of win rates."""

    def section(entries: Entries) -> str:
        lines = [f"## {title}\n", f"Percentage of {_count(entries)} on which soft-DTW reaches a lower DTW loss.\n"]
        for competitor, name in COMPETITORS.items():
            rows = []
            for gamma in GAMMAS:
                ours = [win_rate(entries, start, competitor, gamma) for start in STARTS]
                theirs = figures[competitor][gamma]
                rows.append([f"gamma {gamma:g}", *(f"{a:.1f} ({b:.2f})" for a, b in zip(ours, theirs, strict=True))])
            lines.append(table([f"than {name}", *START_NAMES.values()], rows))
        return "\n".join(lines)

    return section


def _ranks(entries: Entries) -> str:
    lines = ["## Table 3: prediction\n", f"Average rank of the training losses over {_count(entries)}; 1 is best.\n"]
    for judge, name in JUDGES.items():
        ours = {start: average_ranks(entries, judge, start) for start in STARTS}
        rows = []
        for gamma, theirs in paper.RANKS[judge].items():
            key, label = (EUCLIDEAN, "Euclidean") if gamma is None else (soft(gamma), f"soft-DTW, gamma {gamma:g}")
            cells = (f"{ours[start][key]:.2f} ({figure:.2f})" for start, figure in zip(STARTS, theirs, strict=True))
            rows.append([label, *cells])
        lines.append(table([f"judged by the {name} loss", *START_NAMES.values()], rows))
    return "\n".join(lines)


def _neighbors(entries: Entries) -> str:
    rows = []
    for name, entry in entries.items():
        known = paper.ACCURACIES.get(name, (None, None, None))
        ours = (entry["euclidean"], entry["dtw"], entry["dtw_window"])
        rows.append([name, *(_accuracy(a, b) for a, b in zip(ours, known, strict=True))])
    title = "## 1-NN classification\n\nAccuracy on the test part, in brackets the known one where we have it.\n\n"
    return title + table(["set", "Euclidean", "DTW", "DTW, window 10 %"], rows)


def _accuracy(ours: float | None, known: float | None) -> str:
    if ours is None:
        return "lengths differ"
    return f"{ours:.3f}" if known is None else f"{ours:.3f} ({known:.3f})"


def _sets(entries: Mapping[str, Entries]) -> str:
    """Size of each set, what was done to it, and how long each experiment took."""
    rows = []
    for name in sorted({name for found in entries.values() for name in found}):
        by_kind = {kind: found[name] for kind, found in entries.items() if name in found}
        facts = next(iter(by_kind.values()))["set"]
        times = [f"{by_kind[kind]['seconds']:.0f}" if kind in by_kind else "-" for kind in EXPERIMENTS]
        sizes = [f"{facts['train']} + {facts['test']}", _lengths(facts), _resampled(by_kind.values())]
        rows.append([name, *sizes, str(facts["classes"]), *times])
    heads = ["set", "train + test", "length", "resampled to", "classes", *(f"{kind}, s" for kind in EXPERIMENTS)]
    return "## Sets\n\n" + table(heads, rows)


def _lengths(facts: Mapping[str, int]) -> str:
    shortest, longest = facts["shortest"], facts["longest"]
    return str(longest) if shortest == longest else f"{shortest} to {longest}"


def _resampled(entries: Iterable[Mapping[str, Any]]) -> str:
    """The longest series that any experiment used, where it was shortened."""
    used = {entry["used_length"] for entry in entries if entry["used_length"] < entry["set"]["longest"]}
    return ", ".join(map(str, sorted(used)))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, numbers to the right."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, rule, *rows))


def _count(entries: Iterable[str]) -> str:
    n = len(list(entries))
    return f"{n} set" if n == 1 else f"{n} sets"


SECTIONS: dict[str, Callable[[Entries], str]] = {
    "barycenters": _wins("Table 1: barycenters", paper.BARYCENTERS),
    "kmeans": _wins("Table 2: k-means", paper.KMEANS),
    "prediction": _ranks,
    "neighbors": _neighbors,
}
