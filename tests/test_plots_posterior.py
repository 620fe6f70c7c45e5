"""Posterior figures show the draws they are given: intervals, densities, correlations, chains, energies, elpd."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from arviz_base import from_dict
from matplotlib import pyplot as plt

import hmcvi.plots as plots
from hmcvi.inference.diagnostics import ebfmi
from hmcvi.plots._weights import choose_weights

from .drawn_text import check_apart, drawn_on_a_page, visible_texts

MANY = ("nuts", "svi", "bbb-local", "bbb-shared", "laplace", "ensemble", "map")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


# --- synthetic fits


def tree(num_chains, num_draws, scale=1.0, shift=0.0):
    rng = np.random.default_rng(5)

    def draws(*shape):
        return shift + scale * rng.normal(size=(num_chains, num_draws, *shape))

    sites = {
        "hidden_0.kernel": draws(64, 16),
        "hidden_0.bias": draws(16),
        "out.kernel": draws(16, 10),
        "lengthscale": draws(),
    }
    stats = {
        "energy": rng.normal(size=(num_chains, num_draws)),
        "diverging": rng.random((num_chains, num_draws)) < 0.02,
    }
    return from_dict({"posterior": sites, "sample_stats": stats})


def trees():
    return {"nuts": tree(4, 150), "svi": tree(1, 500, 0.4), "bbb-local": tree(1, 300, 0.5, 1.0)}


def many_trees():
    """A method of each kind: chains, draws, the members of an ensemble, one point."""
    sizes = dict.fromkeys(MANY, (1, 200)) | {"nuts": (4, 100), "ensemble": (1, 5), "map": (1, 1)}
    return {label: tree(*sizes[label], 1 / (1 + place)) for place, label in enumerate(MANY)}


def of_sites(**sites):
    return from_dict({"posterior": sites})


def correlated(num_chains=4, num_draws=200):
    """Twenty weights of which two go together, and two more the other way and less so."""
    draws = np.random.default_rng(8).normal(size=(num_chains, num_draws, 20))
    draws[..., 7] = 0.9 * draws[..., 3] + np.sqrt(1 - 0.9**2) * draws[..., 7]
    draws[..., 11] = -0.6 * draws[..., 15] + 0.8 * draws[..., 11]
    return of_sites(w=draws)


def compared(num_methods=3):
    elpd = -300.0 - 12.5 * np.arange(num_methods) ** 2
    numbers = {
        "rank": np.arange(num_methods),
        "elpd_diff": elpd - elpd[0],
        "dse": 4.0 * np.arange(num_methods),
        "diag_elpd": ["", "20 k̂ > 0.67", *[""] * num_methods][:num_methods],
        "elpd": elpd,
        "se": 11.0 + np.arange(num_methods),
    }
    return pd.DataFrame(numbers, index=list(MANY[:num_methods]))


FIGURES = {
    "forest": lambda: plots.forest(trees()),
    "forest, one method": lambda: plots.forest({"svi": tree(1, 100)}, num_weights=3),
    "ridge": lambda: plots.ridge(trees()),
    "ridge, many methods": lambda: plots.ridge(many_trees()),
    "ridge, one weight": lambda: plots.ridge({"svi": tree(1, 100)}, num_weights=1),
    "marginals": lambda: plots.marginals(trees()),
    "marginals, many methods": lambda: plots.marginals(many_trees(), num_weights=4),
    "marginals, one weight": lambda: plots.marginals(trees(), num_weights=1),
    "pairs": lambda: plots.pairs(trees()),
    "pairs, many methods": lambda: plots.pairs(many_trees(), num_pairs=2),
    "pairs, long labels": lambda: plots.pairs({f"{name}, cold and wide": one for name, one in trees().items()}),
    "pairs, one": lambda: plots.pairs(trees(), num_pairs=1),
    "rank": lambda: plots.rank(tree(4, 150)),
    "rank, one weight": lambda: plots.rank(tree(4, 150), sites=["lengthscale"]),
    "trace": lambda: plots.trace(tree(4, 150)),
    "trace, one weight of eight chains": lambda: plots.trace(tree(8, 20), num_weights=1),
    "energy": lambda: plots.energy(tree(4, 150)),
    "energy, one chain": lambda: plots.energy(tree(1, 150)),
    "energy, twelve chains": lambda: plots.energy(tree(12, 50)),
    "comparison": lambda: plots.model_comparison(compared()),
    "comparison, one method": lambda: plots.model_comparison(compared(1)),
    "comparison, seven methods": lambda: plots.model_comparison(compared(7)),
}


def figure_of(drawn):
    return drawn.viz["figure"].item() if hasattr(drawn, "viz") else np.ravel(drawn)[0].get_figure()


# --- laws of every figure


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_whole_and_apart_in_house_sizes(name):
    figure = drawn_on_a_page(lambda: figure_of(FIGURES[name]()))
    texts = visible_texts(figure)
    assert len(texts) > 5
    check_apart(figure, texts)
    shown = [ax for ax in figure.axes if ax.axison and ax.get_visible()]
    assert {label.get_fontsize() for ax in shown for label in ax.get_xticklabels()} == {6.5}
    assert {ax.xaxis.label.get_fontsize() for ax in shown} == {7.5}
    assert not any(ax.spines["top"].get_visible() or ax.spines["right"].get_visible() for ax in shown)


@pytest.mark.parametrize("name", ["forest", "ridge", "marginals", "pairs", "rank", "trace", "energy", "comparison"])
def test_figures_reach_the_disk_in_every_format(name, tmp_path):
    png, svg, pdf = plots.save(FIGURES[name](), tmp_path / "figure", ("png", "svg", "pdf"))
    assert plt.imread(png).shape[1] == pytest.approx(
        200 * (3.5 if name in ("forest", "ridge", "comparison") else 7), abs=3
    )
    assert "<svg" in svg.read_text()
    assert pdf.read_bytes().startswith(b"%PDF")
    assert not plt.get_fignums()


# --- which weights


def test_chosen_weights_are_spread_distinct_and_always_the_same():
    sizes = {"hidden_0.kernel": (64, 16), "hidden_0.bias": (16,), "out.kernel": (16, 10), "lengthscale": ()}
    chosen = choose_weights(sizes, 9)
    assert chosen == choose_weights(sizes, 9)
    assert len(set(chosen)) == 9
    assert [sum(site == name for name, _ in chosen) for site in sizes] == [3, 3, 2, 1]
    assert len({index[1] for site, index in chosen if site == "hidden_0.kernel"}) == 3
    assert all(0 <= i < n for site, index in chosen for i, n in zip(index, sizes[site], strict=True))
    assert [site for site, _ in choose_weights(sizes, 2)] == ["hidden_0.kernel", "lengthscale"]
    everything = choose_weights({"bias": (3,), "scale": ()}, 100)
    assert everything == [("bias", (0,)), ("bias", (1,)), ("bias", (2,)), ("scale", ())]


# --- forest


def test_forest_intervals_are_quantiles_over_all_draws_of_each_method():
    given = trees()
    collection = plots.forest(given, num_weights=4)
    assert list(collection.viz["twig"].dataset) == [
        "hidden_0.kernel[39, 8]",
        "hidden_0.bias[9]",
        "out.kernel[9, 8]",
        "lengthscale",
    ]
    for label in given:
        draws = given[label]["posterior"]["hidden_0.kernel"].values[..., 39, 8].ravel()
        at = {"var_name": "hidden_0.kernel[39, 8]", "model": label}
        twig, trunk = (collection.get_viz(part, **at).get_xdata() for part in ("twig", "trunk"))
        # ArviZ interpolates quantiles in its own way: within a few hundredths of a standard deviation.
        np.testing.assert_allclose(twig, np.quantile(draws, [0.025, 0.975]), atol=0.03 * draws.std())
        np.testing.assert_allclose(trunk, np.quantile(draws, [0.25, 0.75]), atol=0.03 * draws.std())
        point = collection.get_viz("point_estimate", **at).get_offsets()[0, 0]
        assert point == pytest.approx(np.median(draws))
        assert collection.get_viz("twig", **at).get_color() == plots.looks(given)[label].color
    figure = collection.viz["figure"].item()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(given)


# --- marginals


def line_of(ax, label):
    """The x and y of the line that has the look of a method, without the lines of other methods."""
    look = plots.looks(MANY)[label]
    (line,) = [line for line in ax.lines if line.get_color() == look.color]
    return line.get_data()


def test_marginals_are_densities_of_all_draws():
    given = trees()
    axes = plots.marginals(given, num_weights=4)
    assert axes.shape == (2, 2)
    panels = {ax.get_title(): ax for ax in axes.flat}
    for label in given:
        draws = given[label]["posterior"]["hidden_0.kernel"].values[..., 39, 8].ravel()
        x, density = line_of(panels["hidden_0.kernel[39, 8]"], label)
        assert np.trapezoid(density, x) == pytest.approx(1, abs=0.01)
        mean = np.trapezoid(x * density, x)
        assert mean == pytest.approx(draws.mean(), abs=0.05 * draws.std())
        # A kernel widens what it smooths: by a tenth at these numbers of draws.
        width = np.sqrt(np.trapezoid((x - mean) ** 2 * density, x))
        assert 0.98 * draws.std() < width < 1.15 * draws.std()
        low, high = panels["hidden_0.kernel[39, 8]"].get_xlim()
        assert low < np.quantile(draws, 0.001) < np.quantile(draws, 0.999) < high


def test_the_first_method_is_filled_more_than_the_others():
    ax = plots.marginals({label: trees()[label] for label in ("svi", "nuts")}, num_weights=1)[0, 0]
    first, second = ax.collections
    assert mpl.colors.to_hex(first.get_facecolor()[0]) == plots.looks(MANY)["svi"].color.lower()
    assert first.get_alpha() > second.get_alpha()


def test_a_method_of_few_draws_is_a_line_at_each():
    given = {"nuts": tree(4, 50), "ensemble": tree(1, 5), "map": tree(1, 1)}
    ax = plots.marginals(given, sites=["lengthscale"])[0, 0]
    for label in ("ensemble", "map"):
        lines = [line for line in ax.lines if line.get_color() == plots.looks(MANY)[label].color]
        wanted = np.sort(given[label]["posterior"]["lengthscale"].values.ravel())
        np.testing.assert_array_equal([line.get_xdata()[0] for line in lines], wanted)
        assert all(tuple(line.get_ydata()) == (0, 1) for line in lines)
    alone = plots.marginals({"map": tree(1, 1)}, num_weights=1)[0, 0]
    assert len(alone.lines) == 1


@pytest.mark.parametrize(("shift", "below"), [(0.0, False), (-0.01, True)])
def test_a_density_ends_at_0_where_no_draw_is_negative(shift, below):
    draws = np.random.default_rng(0).exponential(size=(1, 1000)) + shift
    x, density = line_of(plots.marginals({"svi": of_sites(scale=draws)})[0, 0], "svi")
    assert (x.min() < -0.5) == below
    assert np.trapezoid(density, x) == pytest.approx(1, abs=0.01)


def test_panels_without_a_weight_are_hidden():
    axes = plots.marginals(trees(), num_weights=5)
    assert [ax.get_visible() for ax in axes.flat] == [True] * 5 + [False]


def test_marginals_draw_into_the_axes_given():
    _, given = plt.subplots(2, 2)
    axes = plots.marginals(trees(), num_weights=3, axes=given)
    assert (axes == given).all()
    assert axes[0, 0].get_legend() is not None
    assert axes[1, 0].get_xlabel() == "value"


# --- ridges


def test_ridges_are_densities_of_one_height_above_their_own_line():
    given = many_trees()
    collection = plots.ridge(given, sites=["lengthscale", "out.kernel"], num_weights=2)
    baselines = collection.get_aes_as_dataset("y")
    assert list(baselines) == ["lengthscale", "out.kernel[9, 8]"]
    heights = set()
    for label in MANY[:5]:
        line = collection.get_viz("edge", "lengthscale", model=label)
        x, y = line.get_data()
        baseline = baselines["lengthscale"].sel(model=label).item()
        heights.add(round(float((y - baseline).max()), 6))
        assert line.get_color() == plots.looks(MANY)[label].color
        density = (y - baseline) / np.trapezoid(y - baseline, x)
        draws = given[label]["posterior"]["lengthscale"].values
        assert np.trapezoid(x * density, x) == pytest.approx(draws.mean(), abs=0.1 * draws.std())
    assert heights == {0.55}
    for name in baselines:
        assert (np.diff([baselines[name].sel(model=label).item() for label in MANY]) < 0).all()
    # The highest ridge of the lower weight stays under the lowest line of the upper one.
    assert baselines["out.kernel[9, 8]"].max().item() + 0.55 < baselines["lengthscale"].min().item()
    ax = collection.viz["figure"].item().axes[1]
    points = [part for part in ax.collections if hasattr(part, "get_segments")]
    ends = np.concatenate([segment[:, 0] for part in points for segment in part.get_segments()])
    assert set(given["map"]["posterior"]["lengthscale"].values.ravel()) <= set(ends)
    assert set(given["ensemble"]["posterior"]["lengthscale"].values.ravel()) <= set(ends)


# --- pairs


def written_correlations(ax):
    return {text.get_text().split(" ρ ")[0]: text.get_text().split(" ρ ")[1].replace("−", "-") for text in ax.texts}


def test_the_pairs_that_the_reference_correlates_most_are_chosen():
    given = {"nuts": correlated(), "svi": of_sites(w=np.random.default_rng(9).normal(size=(1, 500, 20)))}
    axes = plots.pairs(given, num_pairs=2)
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes.flat] == [("w[3]", "w[7]"), ("w[11]", "w[15]")]
    for (first, second), ax in zip(((3, 7), (11, 15)), axes.flat, strict=True):
        for label, written in written_correlations(ax).items():
            draws = given[label]["posterior"]["w"].values
            draws = (draws - draws.mean(axis=1, keepdims=True)).reshape(-1, 20)
            assert float(written) == pytest.approx(np.corrcoef(draws[:, first], draws[:, second])[0, 1], abs=0.0051)
        assert [text.get_color() for text in ax.texts] == [plots.looks(given)[label].color.lower() for label in given]
    assert float(written_correlations(axes.flat[0])["nuts"]) == pytest.approx(0.9, abs=0.03)
    # Another reference has other pairs.
    draws = given["svi"]["posterior"]["w"].values.reshape(-1, 20)
    sizes = np.abs(np.triu(np.corrcoef(draws.T), 1))
    first, second = np.unravel_index(sizes.argmax(), sizes.shape)
    ax = plots.pairs(given, num_pairs=1, reference="svi")[0, 0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (f"w[{first}]", f"w[{second}]")


def test_chains_in_two_modes_are_no_correlation():
    draws = np.random.default_rng(3).normal(size=(2, 300, 3)) + np.array([-5.0, 5.0])[:, None, None]
    draws[..., 2] = draws[..., 0] * [[-1], [1]] * 0.5 + draws[..., 2]  # within each chain, and of either sign
    draws[..., 1] += 0.4 * (draws[..., 0] - draws[..., 0].mean(axis=1, keepdims=True))
    ax = plots.pairs({"nuts": of_sites(w=draws)}, num_pairs=1)[0, 0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("w[0]", "w[1]")
    assert np.corrcoef(draws.reshape(-1, 3)[:, :2].T)[0, 1] > 0.9
    assert 0.2 < float(written_correlations(ax)["nuts"]) < 0.55


def test_points_are_draws_and_the_contour_holds_nine_tenths_of_them():
    given = {"nuts": correlated(), "svi": of_sites(w=np.random.default_rng(9).normal(size=(1, 300, 20)))}
    ax = plots.pairs(given, num_pairs=1)[0, 0]
    scattered = [part for part in ax.collections if len(part.get_offsets()) > 1]
    contours = [part for part in ax.collections if hasattr(part, "levels")]
    assert [len(points.get_offsets()) for points in scattered] == [500, 300]
    for label, points, contour in zip(given, scattered, contours, strict=True):
        draws = given[label]["posterior"]["w"].values.reshape(-1, 20)[:, [3, 7]]
        shown = np.asarray(points.get_offsets())
        assert {tuple(point) for point in shown} <= {tuple(point) for point in draws}
        (path,) = contour.get_paths()
        # The 10 % quantile of the density at the points themselves, up to the interpolation of the grid.
        assert path.contains_points(shown).mean() == pytest.approx(0.9, abs=0.015)
        assert mpl.colors.to_hex(contour.get_edgecolor()[0]) == plots.looks(given)[label].color.lower()


def test_a_method_of_few_draws_is_markers_without_a_correlation():
    given = {"nuts": correlated(), "ensemble": correlated(1, 5), "map": correlated(1, 1)}
    ax = plots.pairs(given, num_pairs=1)[0, 0]
    assert list(written_correlations(ax)) == ["nuts"]
    for label, line in zip(("ensemble", "map"), ax.lines, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), given[label]["posterior"]["w"].values[0][:, [3, 7]])
        assert line.get_marker() == plots.looks(given)[label].marker


def test_draws_on_a_line_or_at_a_point_have_no_contour():
    line = np.random.default_rng(0).normal(size=(1, 50, 1)) * np.array([1.0, -2.0])
    given = {"nuts": of_sites(w=line), "svi": of_sites(w=np.ones((1, 50, 2)))}
    ax = plots.pairs(given)[0, 0]
    assert written_correlations(ax) == {"nuts": "-1.00", "svi": "–"}
    assert not [part for part in ax.collections if hasattr(part, "levels")]


def test_a_heavy_tail_does_not_flatten_the_rest():
    draws = np.random.default_rng(0).normal(size=(1, 5000, 2))
    draws[0, :3] = 1e4
    ax = plots.pairs({"nuts": of_sites(w=draws)})[0, 0]
    assert ax.get_xlim()[1] < 10
    (contour,) = [part for part in ax.collections if hasattr(part, "levels")]
    assert np.ptp(contour.get_paths()[0].vertices[:, 0]) < 10


# --- chains


def test_rank_draws_one_line_a_chain_and_marks_a_chain_that_is_apart():
    draws = np.random.default_rng(7).normal(size=(4, 150))
    agree = plots.rank(from_dict({"posterior": {"lengthscale": draws}}))
    draws = draws + np.array([0, 0, 0, 3.0])[:, None]
    apart = plots.rank(from_dict({"posterior": {"lengthscale": draws}}))

    def widest(collection):
        lines = [collection.get_viz("ecdf_lines", "lengthscale", chain=chain) for chain in range(4)]
        return [np.abs(line.get_ydata()).max() for line in lines]

    assert max(widest(agree)) < 0.15
    assert np.argmax(widest(apart)) == 3
    # All of chain 3 ranks in the top quarter: its ECDF is 0 where the uniform one is near 3/4.
    assert widest(apart)[3] == pytest.approx(0.75, abs=0.08)


def test_sites_can_be_chosen():
    collection = plots.rank(tree(2, 50), sites=["out.kernel"], num_weights=2)
    assert all(name.startswith("out.kernel[") for name in collection.viz["ecdf_lines"].dataset)


def test_trace_is_the_draws_in_order_with_divergences_below():
    given = tree(4, 60)
    collection = plots.trace(given, sites=["lengthscale"])
    for chain in range(4):
        line = collection.get_viz("trace", "lengthscale", chain=chain)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(60))
        np.testing.assert_array_equal(line.get_ydata(), given["posterior"]["lengthscale"].values[chain])
    figure = collection.viz["figure"].item()
    num_divergent = int(given["sample_stats"]["diverging"].values.sum())
    assert num_divergent > 0
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["chain 0", "chain 1", "chain 2", "chain 3", f"{num_divergent} divergent"]
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("draw", "value", "lengthscale")
    marks = np.concatenate([part.get_offsets()[:, 0] for part in ax.collections])
    np.testing.assert_array_equal(np.sort(marks), np.sort(np.nonzero(given["sample_stats"]["diverging"].values)[1]))
    # A sampler that records none has neither marks nor their entry.
    plain = plots.trace(of_sites(lengthscale=given["posterior"]["lengthscale"].values)).viz["figure"].item()
    assert len(plain.legends[0].get_texts()) == 4
    assert not plain.axes[0].collections


def energies():
    """Two chains that move freely, one that hardly moves, one that is stuck."""
    random = np.random.default_rng(2).normal(size=(4, 400))
    random[2] = np.cumsum(random[2])
    random[3] = 7.0
    return from_dict({"posterior": {"a": random}, "sample_stats": {"energy": random}}), random


def test_energy_shows_the_diagnostics_own_ebfmi():
    given, values = energies()
    collection = plots.energy(given)
    points = collection.get_viz("bfmi_points", "bfmi").get_offsets()
    np.testing.assert_allclose(points, np.stack([ebfmi(values), np.arange(4)], axis=1))
    assert points[3, 0] == 0
    ax_share, ax = collection.viz["figure"].item().axes
    assert [text.get_text() for text in ax_share.texts] == [f"{share:.2f}" for share in ebfmi(values)]
    assert [label.get_text() for label in ax_share.get_yticklabels()] == [f"chain {chain}" for chain in range(4)]
    assert 0.3 in [line.get_xdata()[0] for line in ax_share.lines]
    assert ax.get_xlabel() == "energy (nats)"


def test_energy_densities_are_those_of_energies_and_moves():
    given = tree(4, 300)
    collection = plots.energy(given)
    values = given["sample_stats"]["energy"].values
    for name, wanted in (("marginal", values - values.mean()), ("transition", np.diff(values, axis=1))):
        x, density = collection.get_viz("dist", "Energy", energy=name).get_data()
        assert np.trapezoid(density, x) == pytest.approx(1, abs=0.01)
        sd = np.sqrt(np.trapezoid(x**2 * density, x))
        assert sd == pytest.approx(wanted.std(), rel=0.12)


# --- comparison of models


def test_comparison_draws_elpd_with_both_errors():
    given = compared()
    collection = plots.model_comparison(given)
    ax = collection.viz["plot"].item()
    bars = [(*bar.get_children()[0].get_xydata()[0], bar.lines[2][0].get_segments()[0][:, 0]) for bar in ax.containers]
    wanted = []
    for place, row in zip((3, 2, 1), given.itertuples(), strict=True):
        wanted.append((row.elpd, place, row.se))
        if row.dse:
            wanted.append((row.elpd, place - 0.25, row.dse))
    for (x, y, ends), (elpd, place, error) in zip(bars, wanted, strict=True):
        assert (x, y) == (elpd, place)
        np.testing.assert_allclose(ends, [elpd - error, elpd + error])
    colors = [bar.lines[0].get_color() for bar in ax.containers]
    assert [colors[0], colors[1], colors[3]] == [look.color for look in plots.looks(given.index).values()]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["nuts", "svi\n20 k̂ > 0.67", "bbb-local"]
    assert ax.get_xlabel() == "elpd_loo (nats)"
    assert given.loc["nuts", "elpd"] in [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1]


def test_comparison_takes_one_seed_of_the_benchmarks_table():
    seeds = [compared().rename_axis("method").reset_index().assign(seed=seed) for seed in (0, 1)]
    table = pd.concat(seeds, ignore_index=True)
    ax = plots.model_comparison(table[table.seed == 1]).viz["plot"].item()
    assert [label.get_text().split()[0] for label in ax.get_yticklabels()] == list(MANY[:3])
    with pytest.raises(ValueError, match="compared has more than one row of"):
        plots.model_comparison(table)


# --- inputs that do not fit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.forest({"nuts": from_dict({"prior": {"a": np.ones((1, 2))}})}), "no group 'posterior'"),
        (lambda: plots.forest(trees(), sites=["out.bias"]), r"\['out.bias'\] are not in every posterior"),
        (lambda: plots.forest(trees(), num_weights=0), "num_weights is 0"),
        (lambda: plots.forest({"nuts": of_sites(a=np.array([[0.0, np.nan]]))}), "a has 1 of 2 values NaN"),
        (lambda: plots.ridge(trees(), sites=["out.bias"]), r"\['out.bias'\] are not in every posterior"),
        (lambda: plots.marginals({"a": of_sites(v=np.ones((1, 9))), "b": of_sites(w=np.ones((1, 9)))}), "same shape"),
        (lambda: plots.marginals(trees(), axes=plt.subplots(1, 2)[1]), "axes has 2 panels and there are 6 weights"),
        (lambda: plots.pairs(trees(), num_pairs=0), "num_pairs is 0"),
        (lambda: plots.pairs(trees(), reference="hmc"), r"reference is 'hmc' but trees has \['nuts', 'svi'"),
        (lambda: plots.pairs({"map": tree(1, 1), "nuts": tree(4, 50)}), "'map' has 1 draws but a correlation needs 10"),
        (lambda: plots.pairs({"nuts": of_sites(v=np.ones((1, 20)), w=np.ones((1, 20)))}), "no two weights that move"),
        (lambda: plots.pairs(trees(), sites=["lengthscale"]), "no two weights that move"),
        (lambda: plots.rank(tree(1, 20)), "1 chain but a rank plot compares at least 2"),
        (lambda: plots.trace(tree(1, 1)), "1 draw but a trace joins at least 2"),
        (lambda: plots.energy(of_sites(a=np.ones((2, 20)))), "no energy in its group 'sample_stats'"),
        (lambda: plots.energy(tree(2, 5)), "5 draws a chain but its distribution needs 10"),
        (
            lambda: plots.energy(
                from_dict({"posterior": {"a": np.ones((1, 20))}, "sample_stats": {"energy": np.ones((1, 20))}})
            ),
            "the energy is 1 in every draw",
        ),
        (lambda: plots.model_comparison(compared().drop(columns="dse")), r"but no \['dse'\]"),
        (lambda: plots.model_comparison(compared().iloc[:0]), "compared has no row"),
        (lambda: plots.model_comparison(compared().assign(elpd=np.nan)), "compared has 3 of 12 values NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("draw", [plots.forest, plots.ridge, plots.marginals, plots.pairs, plots.model_comparison])
def test_an_array_in_place_of_what_is_wanted_is_a_type_error(draw):
    with pytest.raises(TypeError, match=r"must map at least one label|should be the data frame"):
        draw(np.ones((3, 2)))


def test_a_ridge_of_single_draws_alone_is_a_line_each(tmp_path):
    """As of MAP alone, or of a sampler whose chains are stuck: there is no density to draw."""
    one = from_dict({"posterior": {"lengthscale": np.full((1, 1), 0.5), "noise": np.full((1, 1), -2.0)}})
    collection = plots.ridge({"map": one})
    ax = collection.viz["figure"].item().axes[1]
    low, high = ax.get_xlim()
    assert low < -2.0 < 0.5 < high
    drawn = [x for lines in ax.collections for path in lines.get_paths() for x in path.vertices[:, 0]]
    assert {-2.0, 0.5} <= set(drawn)
    assert all(path.exists() for path in plots.save(collection, tmp_path / "ridge"))


def test_a_tree_in_place_of_trees_is_told_how_to_be_passed():
    tree = from_dict({"posterior": {"lengthscale": np.zeros((1, 20))}})
    with pytest.raises(TypeError, match=r"trees must map at least one label to its DataTree"):
        plots.pairs(tree)
