"""k-means of series: against slow code and golden cases, its rules, and scikit-learn's conventions."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import run_on_two_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import averaging as reference

import torch_dalign as dalign
from torch_dalign import _series

GOLDEN = Path(__file__).parent / "golden" / "barycenter_kmeans.npz"


def three_shapes(per_shape: int, rng: np.random.Generator, ragged: bool = False) -> list[np.ndarray]:
    """Up, down and one bump, each some times in turns, shifted in time, with noise."""
    series = []
    for _ in range(per_shape):
        for shape in (lambda t: 2 * t, lambda t: -2 * t, lambda t: 3 * np.exp(-((t - 0.5) ** 2) / 0.01)):
            length = int(rng.integers(15, 25)) if ragged else 20
            times = np.linspace(0, 1, length) ** rng.uniform(0.8, 1.25)
            series.append(shape(times) + 0.1 * rng.standard_normal(length))
    return series


def same_partition(labels: object, expected: object) -> bool:
    """Equal up to the numbering of the clusters."""
    pairs = set(zip(np.asarray(labels).tolist(), np.asarray(expected).tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


# ---------------------------------------------------------------- against slow code


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    centers=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    features=st.integers(1, 3),
    gamma=st.sampled_from([0.0, 0.01, 1.0, 10.0]),
    divergence=st.booleans(),
    band=st.sampled_from([None, 1, 2.5]),
    seed=st.integers(0, 1000),
)
def test_distances_labels_and_score(lengths, centers, features, gamma, divergence, band, seed):
    rng = np.random.default_rng(seed)
    series, init = ([rng.standard_normal((n, features)) for n in ns] for ns in (lengths, centers))
    weights = rng.uniform(0.1, 2, len(lengths))
    kmeans = dalign.SoftDTWKMeans(
        len(init), gamma, init=init, max_iter=0, band=band, distance="divergence" if divergence else "softdtw"
    )
    kmeans.cluster_centers_ = init
    expected = reference.distances(series, init, gamma, band=band, divergence=divergence and gamma > 0)
    found = kmeans.transform(series)
    scale = max(1.0, np.abs(reference.distances(series, [*init, *series], gamma, band=band)).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)
    np.testing.assert_array_equal(kmeans.predict(series), found.argmin(1))
    assert math.isclose(kmeans.score(series, sample_weight=weights), -(weights @ found.min(1)), abs_tol=1e-11 * scale)


@pytest.mark.parametrize("name", [{"distance": "dtw"}, {"gamma": 0}])
def test_lloyd_with_dba_is_the_slow_one(name):
    rng = np.random.default_rng(0)
    series = [s[:, None] for s in three_shapes(4, rng, ragged=True)]
    options = {"init": series[:3], "max_iter": 3, "max_iter_barycenter": 4, "tol": 0, **name}
    kmeans = dalign.SoftDTWKMeans(3, **options).fit(series)
    labels, centers = reference.kmeans(series, series[:3], kmeans.n_iter_, 4)
    np.testing.assert_array_equal(kmeans.labels_, labels)
    for found, expected in zip(kmeans.cluster_centers_, centers, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert math.isclose(kmeans.inertia_, reference.distances(series, centers, 0).min(1).sum(), rel_tol=1e-12)


# ---------------------------------------------------------------- golden cases (see golden/README.md)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


@pytest.mark.parametrize("k", [2, 3])
def test_golden_assignments(golden, k):
    x = golden["ipd_X"]
    soft = dalign.SoftDTWKMeans(k, 0.1, init=x[:k], max_iter=0).fit(x)
    np.testing.assert_array_equal(soft.labels_, golden[f"assign_k{k}_softdtw0.1"])
    expected = golden[f"assign_k{k}_softdtw0.1_cdist"]
    np.testing.assert_allclose(soft.transform(x), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    hard = dalign.SoftDTWKMeans(k, distance="dtw", init=x[:k], max_iter=0).fit(x)
    np.testing.assert_array_equal(hard.labels_, golden[f"assign_k{k}_dtw"])
    assert math.isclose(hard.inertia_ / len(x), golden[f"assign_k{k}_dtw_inertia"], rel_tol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_golden_clusters_of_dtw(golden, k):
    x = golden["ipd_X"]
    kmeans = dalign.SoftDTWKMeans(k, distance="dtw", init=x[:k], max_iter_barycenter=100, tol=0).fit(x)
    np.testing.assert_array_equal(kmeans.labels_, golden[f"km_k{k}_dtw_labels"])
    np.testing.assert_allclose(kmeans.cluster_centers_, golden[f"km_k{k}_dtw_centers"], atol=1e-12)
    assert math.isclose(kmeans.inertia_ / len(x), golden[f"km_k{k}_dtw_inertia"], rel_tol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_golden_clusters_of_soft_dtw(golden, k, gamma):
    """The same clusters. Their optimizer stops early (at 1e-3), so ours is no worse; their inertia is of other centers.

    It was computed before the last update of the centers, and from squared distances, of which soft-DTW has none.
    """
    x, name = golden["ipd_X"], f"km_k{k}_softdtw_g{gamma}"
    kmeans = dalign.SoftDTWKMeans(k, gamma, init=x[:k], max_iter_barycenter=100, tol=1e-9).fit(x)
    np.testing.assert_array_equal(kmeans.labels_, golden[f"{name}_labels"])
    theirs = dalign.SoftDTWKMeans(k, gamma, init=golden[f"{name}_centers"], max_iter=0).fit(x)
    np.testing.assert_array_equal(theirs.labels_, golden[f"{name}_labels"])
    assert kmeans.inertia_ <= theirs.inertia_
    squared = (theirs.transform(x).min(1) ** 2).mean()
    assert math.isclose(squared, golden[f"{name}_inertia"], rel_tol=2e-4)


# ---------------------------------------------------------------- what fit finds

DISTANCES = [
    {},
    {"gamma": 0.01},
    {"distance": "dtw"},
    {"distance": "divergence"},
    {"distance": "dtw", "metric": "manhattan"},
]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("options", DISTANCES, ids=str)
def test_finds_the_three_shapes(options, ragged):
    series = three_shapes(6, np.random.default_rng(0), ragged)
    kmeans = dalign.SoftDTWKMeans(3, n_init=3, random_state=0, **options).fit(series)
    assert same_partition(kmeans.labels_, [0, 1, 2] * 6)
    np.testing.assert_array_equal(kmeans.labels_, kmeans.predict(series))
    np.testing.assert_allclose(kmeans.transform(series).min(1).sum(), kmeans.inertia_, rtol=1e-12)
    assert math.isclose(kmeans.score(series), -kmeans.inertia_, rel_tol=1e-12)
    assert kmeans.history_ == sorted(kmeans.history_, reverse=True)
    assert kmeans.history_[-1] == kmeans.inertia_
    assert kmeans.n_iter_ == len(kmeans.history_) - 1 >= 1
    assert isinstance(kmeans.cluster_centers_, list if ragged else np.ndarray)


@pytest.mark.parametrize("options", DISTANCES[:-1], ids=str)
def test_minibatches_find_the_three_shapes_too(options):
    series = three_shapes(12, np.random.default_rng(0))
    options = {"init": series[:3], "random_state": 0, **options}
    parts = dalign.SoftDTWKMeans(3, batch_size=9, **options).fit(series)
    whole = dalign.SoftDTWKMeans(3, **options).fit(series)
    assert same_partition(parts.labels_, whole.labels_)
    np.testing.assert_array_equal(parts.labels_, parts.predict(series))
    start = dalign.SoftDTWKMeans(3, **{**options, "max_iter": 0}).fit(series)
    assert parts.inertia_ - whole.inertia_ < 0.2 * (start.inertia_ - whole.inertia_)
    assert parts.n_iter_ == len(parts.history_)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_single_frames_are_plain_k_means(batch_size):
    """Frames 0, 0.1 ... and 10, 10.1 ...: means of the two groups, also as running means of minibatches."""
    x = torch.cat([torch.arange(8) / 10, 10 + torch.arange(8) / 10]).double()[:, None, None]
    options = {"batch_size": batch_size, "random_state": 0, "max_iter": 1}
    kmeans = dalign.SoftDTWKMeans(2, distance="dtw", init=x[[0, 8]], **options).fit(x)
    torch.testing.assert_close(kmeans.cluster_centers_.flatten(), torch.tensor([0.35, 10.35]).double())


def test_more_runs_find_no_worse():
    series = three_shapes(5, np.random.default_rng(1))
    inertias = [
        dalign.SoftDTWKMeans(4, 0.1, n_init=n, init="random", random_state=0).fit(series).inertia_ for n in (1, 4)
    ]
    assert inertias[1] <= inertias[0]


@pytest.mark.parametrize("batch_size", [None, 7])
def test_a_center_without_series_starts_anew(batch_size):
    series = three_shapes(5, np.random.default_rng(0))
    nowhere = [np.full(20, value) for value in (1000.0, 2000.0)]
    options = {"init": [series[0], *nowhere], "batch_size": batch_size, "random_state": 0}
    kmeans = dalign.SoftDTWKMeans(3, 0.1, **options).fit(series)
    assert set(kmeans.labels_) == {0, 1, 2}
    assert np.abs(kmeans.cluster_centers_).max() < 10


def test_centers_start_anew_from_the_series_that_are_worst_off():
    x = np.array([0.0, 0.1, 0.2, 5.0, 20.0, 20.1])[:, None]
    kmeans = dalign.SoftDTWKMeans(3, distance="dtw", init=[[0.1], [90.0], [99.0]], max_iter=1).fit(x)
    # 20.1 and 20 are farthest from .1; then 5 goes where it is nearest to
    np.testing.assert_allclose(kmeans.cluster_centers_[1:], [[20.1], [20.0]])
    np.testing.assert_array_equal(kmeans.labels_, [0, 0, 0, 0, 2, 1])


def test_fewer_different_series_than_clusters():
    kmeans = dalign.SoftDTWKMeans(3, distance="dtw", random_state=0).fit(np.ones((5, 4)))
    assert kmeans.inertia_ == 0
    np.testing.assert_array_equal(kmeans.cluster_centers_, np.ones((3, 4)))


def test_plus_plus_draws_far_series():
    """Three tight groups: the first centers are of three groups, whatever the seed; random ones are not."""
    x = np.repeat([0.0, 10.0, 20.0], 10)[:, None] + np.random.default_rng(0).uniform(0, 0.01, (30, 1))

    def groups(init: str, seed: int) -> int:
        kmeans = dalign.SoftDTWKMeans(3, distance="dtw", init=init, random_state=seed, max_iter=0).fit(x)
        return len(set(np.round(kmeans.cluster_centers_[:, 0], -1)))

    assert [groups("k-means++", seed) for seed in range(20)] == [3] * 20
    assert min(groups("random", seed) for seed in range(20)) < 3


def test_weights_count_series():
    rng = np.random.default_rng(0)
    series = three_shapes(2, rng)
    counts = [3, 1, 2, 1, 0, 2]
    repeated = [s for s, count in zip(series, counts, strict=True) for _ in range(count)]
    options = {"init": series[:3], "tol": 1e-10, "max_iter_barycenter": 100}
    expected = dalign.SoftDTWKMeans(3, 0.1, **options).fit(repeated)
    kmeans = dalign.SoftDTWKMeans(3, 0.1, **options).fit(series, sample_weight=counts)
    assert math.isclose(kmeans.inertia_, expected.inertia_, rel_tol=1e-8)
    np.testing.assert_allclose(kmeans.cluster_centers_, expected.cluster_centers_, atol=1e-3)
    for init in ("k-means++", "random"):
        one = dalign.SoftDTWKMeans(1, init=init, random_state=0, max_iter=0).fit(
            series, sample_weight=[0, 0, 1, 0, 0, 0]
        )
        np.testing.assert_array_equal(one.cluster_centers_[0], series[2])


# ---------------------------------------------------------------- what fit takes and gives


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("features", [None, 2])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_and_shapes(as_tensor, features, ragged, dtype):
    rng = np.random.default_rng(0)
    shape = () if features is None else (features,)
    series = [rng.standard_normal((n, *shape)).astype(dtype) for n in ([5, 8, 6, 7] if ragged else [6] * 4)]
    x = [torch.from_numpy(s) for s in series] if as_tensor else series if ragged else np.stack(series)
    kmeans = dalign.SoftDTWKMeans(2, random_state=0, max_iter=2).fit(x)
    kind, integer, real = (
        (torch.Tensor, torch.int64, getattr(torch, dtype.__name__)) if as_tensor else (np.ndarray, np.int64, dtype)
    )
    for found, number in ((kmeans.labels_, integer), (kmeans.predict(x), integer), (kmeans.transform(x), real)):
        assert isinstance(found, kind)
        assert found.dtype == number
    assert tuple(kmeans.labels_.shape) == (4,)
    assert tuple(kmeans.transform(x).shape) == (4, 2)
    for center in kmeans.cluster_centers_:
        assert isinstance(center, kind)
        assert center.dtype == real
        assert tuple(center.shape[1:]) == shape
    same = dalign.SoftDTWKMeans(2, random_state=0, max_iter=2, length=9).fit(x).cluster_centers_
    assert tuple(same.shape) == (2, 9, *shape)


def test_padding_with_lengths_is_the_list():
    series = three_shapes(3, np.random.default_rng(0), ragged=True)
    padded = np.full((9, 30), np.nan)
    lengths = np.array([len(s) for s in series])
    for row, s in zip(padded, series, strict=True):
        row[: len(s)] = s
    kmeans = dalign.SoftDTWKMeans(3, 0.1, random_state=0).fit(series)
    other = dalign.SoftDTWKMeans(3, 0.1, random_state=0).fit(padded, lengths=lengths)
    assert other.inertia_ == kmeans.inertia_
    np.testing.assert_array_equal(other.transform(padded, lengths), kmeans.transform(series))
    np.testing.assert_array_equal(other.predict(padded, lengths=lengths), kmeans.fit_predict(series))
    assert math.isclose(other.score(padded, lengths=lengths), -kmeans.inertia_, rel_tol=1e-12)


@pytest.mark.parametrize("options", [{}, {"distance": "dtw"}, {"distance": "divergence"}], ids=str)
def test_batches_of_any_size_give_the_same(options, monkeypatch):
    series = three_shapes(4, np.random.default_rng(0), ragged=True)
    options = {"gamma": 0.1, "init": series[:3], "max_iter": 3, **options}
    whole = dalign.SoftDTWKMeans(3, **options).fit(series)
    monkeypatch.setattr(_series, "BATCH_NUMBERS", 60)
    parts = dalign.SoftDTWKMeans(3, **options).fit(series)
    np.testing.assert_allclose(parts.history_, whole.history_, rtol=1e-10)
    np.testing.assert_array_equal(parts.labels_, whole.labels_)


def test_result_of_no_dependence_on_threads():
    x = torch.randn(40, 30, 2).cumsum(1)
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        results.append([dalign.SoftDTWKMeans(3, g, random_state=0, max_iter=3).fit(x) for g in (0, 0.5)])
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one.labels_, two.labels_)
        assert torch.equal(one.cluster_centers_, two.cluster_centers_)
        assert one.inertia_ == two.inertia_


@pytest.mark.parametrize("options", [{}, {"init": "random"}, {"batch_size": 4}], ids=str)
def test_random_state(options):
    x = np.random.default_rng(0).standard_normal((14, 6))

    def fit(state):
        return dalign.SoftDTWKMeans(3, 0.1, random_state=state, max_iter=2, **options).fit(x)

    for make in (lambda: 3, lambda: np.random.RandomState(3), lambda: np.random.default_rng(3), lambda: None):
        runs = []
        for _ in range(2):
            torch.manual_seed(1)
            runs.append(fit(make()))
        np.testing.assert_array_equal(runs[0].cluster_centers_, runs[1].cluster_centers_)
    others = [fit(seed).cluster_centers_ for seed in range(5)]
    assert not all(np.array_equal(others[0], other) for other in others[1:])


# ---------------------------------------------------------------- misuse

X = torch.randn(5, 6, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters must be >= 1"),
        ({"n_clusters": 6}, ValueError, "n_clusters=6 needs as many series with a weight, got n_samples=5"),
        ({"n_clusters": 2.0}, TypeError, "n_clusters must be an integer, got float"),
        ({"distance": "euclidean"}, ValueError, "distance must be one of 'softdtw', 'dtw', 'divergence'"),
        ({"gamma": -0.1}, ValueError, "gamma must be finite and >= 0"),
        ({"metric": "bce"}, ValueError, "metric of an average.*got 'bce'"),
        ({"n_init": 0}, ValueError, "n_init must be >= 1"),
        ({"init": "far"}, ValueError, "init must be one of 'k-means\\+\\+', 'random', got 'far'"),
        ({"init": X[:2]}, ValueError, "init must hold n_clusters=3 series, got 2"),
        ({"init": X[:3, :, :1]}, ValueError, "init has 1 features per frame, expected 2"),
        ({"init": [X[0], X[1], "x"]}, ValueError, r"init\[2\] must hold real numbers"),
        ({"length": 0}, ValueError, "length must be >= 1"),
        ({"max_iter": -1}, ValueError, "max_iter must be >= 0"),
        ({"max_iter_barycenter": -1}, ValueError, "max_iter_barycenter must be >= 0"),
        ({"tol": -1}, ValueError, "tol must be finite and >= 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1"),
        ({"batch_size": 2, "metric": "manhattan"}, ValueError, "batch_size needs .* metric 'sqeuclidean', 'cosine' or"),
        ({"band": 0.1}, ValueError, "band must be an integer >= 1"),
        ({"random_state": 1.5}, TypeError, "random_state must be an integer"),
        ({"distributed": "gloo"}, ValueError, "distributed needs torch.distributed.init_process_group"),
    ],
    ids=str,
)
def test_misuse_of_parameters_shows_in_fit(options, error, message):
    kmeans = dalign.SoftDTWKMeans(**options)
    with pytest.raises(error, match=message):
        kmeans.fit(X)


@pytest.mark.parametrize("method", ["predict", "transform", "score"])
def test_misuse_after_fit(method):
    kmeans = dalign.SoftDTWKMeans(2, random_state=0, max_iter=1)
    with pytest.raises(ValueError, match="this SoftDTWKMeans is not fitted yet: call fit first"):
        getattr(kmeans, method)(X)
    kmeans.fit(X)
    with pytest.raises(ValueError, match="X has 1 features per frame, expected 2"):
        getattr(kmeans, method)(X[..., 0])
    with pytest.raises(ValueError, match=r"X\[0\] contains NaN or inf"):
        getattr(kmeans, method)(X / 0)


# ---------------------------------------------------------------- scikit-learn's conventions

FRAMES = {
    "check_n_features_in": "the second axis of X (n, N) is time, not features",
    "check_n_features_in_after_fitting": "as check_n_features_in",
    "check_estimators_empty_data_messages": "asks for scikit-learn's own words about features",
}
EXCLUDED = {
    **FRAMES,
    "check_transformer_general": "asks for an error where series have another length than in fit, which they may have",
    "check_fit2d_predict1d": "asks for scikit-learn's own words about a vector",
    "check_sample_weight_equivalence_on_dense_data": "random starts differ between repeated and weighted series",
}


STATUSES = ("failed", "xfail", "passed")


def failures(estimator: object, expected: dict[str, str]) -> tuple[dict[str, str], set[str], set[str]]:
    """scikit-learn's checks: what failed and why, what failed as expected, what passed."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(estimator, expected_failed_checks=expected, on_fail=None, on_skip=None)
    named = {status: {r["check_name"]: r["exception"] for r in results if r["status"] == status} for status in STATUSES}
    return {name: str(why) for name, why in named["failed"].items()}, set(named["xfail"]), set(named["passed"])


@pytest.mark.filterwarnings("ignore:Estimator .* does not inherit")
def test_check_estimator():
    failed, expected, passed = failures(dalign.SoftDTWKMeans(2, max_iter=3, max_iter_barycenter=3), EXCLUDED)
    assert failed == {}
    assert expected == set(EXCLUDED)
    assert {"check_estimators_pickle", "check_fit_idempotent", "check_methods_subset_invariance"} <= passed


@pytest.mark.filterwarnings("ignore:Estimator .* does not inherit")
def test_check_estimator_of_barycenters():
    failed, expected, passed = failures(dalign.SoftDTWBarycenter(max_iter=2), FRAMES)
    assert failed == {}
    assert expected == set(FRAMES)
    assert "check_sample_weights_shape" in passed


def test_checks_for_clusterers():
    """Those that check_estimator has for subclasses of ClusterMixin alone."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    checks.check_clusterer_compute_labels_predict("SoftDTWKMeans", dalign.SoftDTWKMeans(2, max_iter=2))
    checks.check_clustering("SoftDTWKMeans", dalign.SoftDTWKMeans(2, max_iter=2))


def test_pipeline_and_search():
    pytest.importorskip("sklearn")
    from sklearn.base import clone, is_clusterer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = np.stack(three_shapes(6, np.random.default_rng(0))), np.array([0, 1, 2] * 6)
    kmeans = dalign.SoftDTWKMeans(3, 0.1, random_state=0, n_init=2)
    assert is_clusterer(kmeans)
    assert same_partition(make_pipeline(StandardScaler(), kmeans).fit_predict(x), y)
    model = make_pipeline(kmeans, LogisticRegression()).fit(x, y)
    assert model.score(x, y) == 1
    search = GridSearchCV(kmeans, {"gamma": [0.1, 1.0]}, cv=2).fit(x)
    assert search.best_params_["gamma"] == 1.0  # soft-DTW falls with gamma
    assert clone(kmeans).get_params() == kmeans.get_params()


def test_fit_transform_and_pickle():
    series = three_shapes(3, np.random.default_rng(0), ragged=True)
    kmeans = dalign.SoftDTWKMeans(3, 0.1, random_state=0)
    distances = kmeans.fit_transform(series)
    np.testing.assert_array_equal(distances, kmeans.transform(series))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(kmeans)).transform(series), distances)


# ---------------------------------------------------------------- shards

SHARDS = """
    torch.manual_seed(0)
    series = [torch.randn(int(n), 2, dtype=torch.float64).cumsum(0) for n in torch.randint(5, 20, (17,))]
    weights = torch.rand(17)
    mine = slice(0, 6) if rank == 0 else slice(6, None)
    far = [torch.full((5, 2), 1e3 * c, dtype=torch.float64) for c in range(3)]
    for options in (
        {}, {"distance": "dtw"}, {"distance": "divergence"}, {"init": "random", "n_init": 3}, {"init": far}
    ):
        options = {"gamma": 0.3, "max_iter": 5, "random_state": 3, **options}
        alone = dalign.SoftDTWKMeans(3, **options).fit(series, sample_weight=weights)
        shared = dalign.SoftDTWKMeans(3, distributed=True, **options)
        shared.fit(series[mine], sample_weight=weights[mine])
        assert torch.equal(shared.labels_, alone.labels_[mine])
        torch.testing.assert_close(shared.inertia_, alone.inertia_, rtol=1e-9, atol=0)
        torch.testing.assert_close(shared.history_, alone.history_, rtol=1e-9, atol=0)
        for a, b in zip(shared.cluster_centers_, alone.cluster_centers_, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        score = shared.score(series[mine], sample_weight=weights[mine])
        torch.testing.assert_close(score, -alone.inertia_, rtol=1e-9, atol=0)
        if rank == 0:  # a rank may predict for itself
            assert torch.equal(shared.predict(series[mine]), shared.labels_)
    parts = dalign.SoftDTWKMeans(3, 0.3, batch_size=2, max_iter=3, distributed=True)
    parts.fit(series[mine], sample_weight=weights[mine])
    found = [None, None]
    dist.all_gather_object(found, parts.cluster_centers_)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
"""


def test_two_processes_find_what_one_finds(tmp_path):
    run_on_two_ranks(SHARDS, tmp_path)
