"""The convergence figure shows what the verdict judged: every R-hat and effective sample size, and where they fail."""

import dataclasses

import jax
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

import hmcvi.plots as plots
from hmcvi.inference import NUTS, diagnostics, fit
from hmcvi.inference.diagnostics import FunctionSpace, bulk_ess, rank_rhat, tail_ess, verdict

from .drawn_text import check_apart, visible_texts
from .targets import conjugate_regression, linear_regression

KINDS = ("log-likelihoods", "means and sds")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def draws(seed=0, spread=0.0, num_chains=4, num_draws=500, num_values=60):
    """Chains (chain, draw, value) of which later values lie further apart."""
    random = np.random.default_rng(seed)
    apart = random.normal(size=(num_chains, 1, num_values)) * np.linspace(0, spread, num_values)
    return random.normal(size=(num_chains, num_draws, num_values)) + apart


def one(label="nuts", **kwargs):
    return {label: {"log-likelihoods": FunctionSpace.of(draws(**kwargs))}}


def both():
    values = {"nuts": draws(), "hmc": draws(1, spread=1.0), "mclmc": draws(2, spread=0.1, num_chains=2)}
    return {label: {kind: FunctionSpace.of(of) for kind in KINDS} for label, of in values.items()}


# --- what the verdict hands over


def test_a_verdict_carries_the_numbers_it_was_made_of(monkeypatch):
    counted = []
    monkeypatch.setattr(diagnostics, "rank_rhat", lambda values: counted.append(1) or rank_rhat(values))
    values = {"log-likelihoods": draws(), "means and sds": draws(1, spread=0.3)}
    found = verdict(values)
    assert len(counted) == 2  # once a kind
    assert list(found.by_kind) == list(values)
    for kind, of in found.by_kind.items():
        np.testing.assert_allclose(of.rhat, rank_rhat(values[kind]), rtol=1e-12)
        np.testing.assert_allclose(of.ess_bulk, bulk_ess(values[kind]), rtol=1e-12)
        np.testing.assert_allclose(of.ess_tail, tail_ess(values[kind]), rtol=1e-12)
        assert of.num_chains == 4
    assert found.rhat == max(of.judged_rhat for of in found.by_kind.values())
    assert found.ess_bulk == min(of.judged_ess_bulk for of in found.by_kind.values())
    assert found.ess_tail == min(of.judged_ess_tail for of in found.by_kind.values())
    in_sequence = verdict(list(values.values()))
    assert in_sequence == dataclasses.replace(found, ebfmi=in_sequence.ebfmi)  # NaN is no number's equal
    assert list(in_sequence.by_kind) == ["kind 0", "kind 1"]
    assert "by_kind" not in repr(found)
    assert hash(found) is not None


def test_judged_numbers_leave_out_a_twentieth():
    numbers = np.linspace(1.0, 2.0, 101)  # five of 101 may be worse
    of = FunctionSpace(np.r_[numbers], 100 * numbers, -numbers, 4)
    assert of.judged_rhat == pytest.approx(1.95)
    assert of.judged_ess_bulk == pytest.approx(105)
    assert of.judged_ess_tail == 0
    assert FunctionSpace(np.r_[np.full(7, np.nan), numbers], numbers, numbers, 4).judged_rhat == np.inf


def test_a_constant_value_is_no_function_value():
    values = np.concatenate([draws(), np.full((4, 500, 5), 0.5)], axis=2)
    found = verdict({"means and sds": values, "log-likelihoods": np.ones((4, 500, 3))})
    assert list(found.by_kind) == ["means and sds"]
    assert len(found.by_kind["means and sds"].rhat) == found.num_values == 60
    stuck = verdict({"log-likelihoods": np.ones((4, 500, 3))})
    assert np.isnan(stuck.by_kind["log-likelihoods"].rhat).all()


def test_a_fit_is_judged_by_named_kinds():
    target = conjugate_regression()
    x, y = target.x.astype(np.float32), target.y.astype(np.float32)
    result = fit(jax.random.key(0), linear_regression, x, y, NUTS(num_warmup=50, num_draws=50, num_chains=2))
    found = diagnostics.convergence(result, x, y)
    assert {kind: len(of.rhat) for kind, of in found.by_kind.items()} == {"log-likelihoods": 40, "means and sds": 32}
    assert plots.convergence({"nuts": found.by_kind}).shape == (2, 2)


# --- the figure

FIGURES = {
    "one sampler of one kind": lambda: plots.convergence(one()),
    "three samplers of two kinds": lambda: plots.convergence(both()),
    "chains far apart": lambda: plots.convergence(one(spread=50.0)),
    "stuck": lambda: plots.convergence({"nuts": {"log-likelihoods": FunctionSpace.of(np.ones((4, 100, 3)))}}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_whole_and_apart_in_house_sizes(name):
    before = dict(mpl.rcParams)
    axes = FIGURES[name]()
    assert dict(mpl.rcParams) == before
    figure = axes[0, 0].get_figure()
    assert figure.get_figwidth() == plots.PAGE_WIDTH
    figure.canvas.draw()
    texts = visible_texts(figure)
    assert {"R-hat", "effective sample size, draws a chain", "1.01", "100", "0.95"} <= {text for text, _ in texts}
    check_apart(figure, texts)
    assert {label.get_fontsize() for ax in axes.flat for label in ax.get_xticklabels()} == {6.5}
    assert not any(ax.spines["top"].get_visible() for ax in axes.flat)


def test_the_figure_reaches_the_disk_in_every_format(tmp_path):
    paths = plots.save(plots.convergence(both()), tmp_path / "convergence", ("png", "svg", "pdf"))
    assert plt.imread(paths[0]).shape[1] == round(plots.PAGE_WIDTH * 200)
    assert "<svg" in paths[1].read_text()
    assert paths[2].read_bytes().startswith(b"%PDF")


def share_at(line, place):
    """The height of a step line at a place between its steps."""
    x, y = line.get_data()
    if line.get_drawstyle() == "steps-post":
        return y[np.searchsorted(x, place, side="right") - 1]
    return y[np.searchsorted(x, place, side="left")]


def curves_of(ax, label):
    look = plots.looks(["nuts", "hmc", "mclmc"])[label]
    return [line for line in ax.lines if line.get_color() == look.color and len(line.get_xdata()) > 1]


@pytest.mark.parametrize("place", [1.002, 1.01, 1.2])
@pytest.mark.parametrize("label", ["nuts", "hmc", "mclmc"])
def test_rhat_curves_are_the_share_of_values_below(label, place):
    given = both()
    (line,) = curves_of(plots.convergence(given)[0, 0], label)
    assert share_at(line, place) == pytest.approx(np.mean(given[label]["log-likelihoods"].rhat <= place))


@pytest.mark.parametrize("place", [20, 100, 400])
@pytest.mark.parametrize("label", ["nuts", "hmc", "mclmc"])
def test_size_curves_are_the_share_of_values_above_in_draws_a_chain(label, place):
    given = both()
    of = given[label]["log-likelihoods"]
    bulk, tail = curves_of(plots.convergence(given)[0, 1], label)
    assert share_at(bulk, place) == pytest.approx(np.mean(of.ess_bulk / of.num_chains >= place))
    assert share_at(tail, place) == pytest.approx(np.mean(of.ess_tail / of.num_chains >= place))
    assert bulk.get_linestyle() == "-"
    assert tail.get_linestyle() != "-"


def test_markers_stand_at_what_the_verdict_reads():
    given = both()
    axes = plots.convergence(given)
    for label, of in ((label, kinds["log-likelihoods"]) for label, kinds in given.items()):
        wanted = (
            [max(of.judged_rhat, 1.001)],
            [of.judged_ess_bulk / of.num_chains, of.judged_ess_tail / of.num_chains],
        )
        for ax, places in zip(axes[0], wanted, strict=True):
            marks = [line for line in ax.lines if line.get_marker() == plots.looks(given)[label].marker]
            np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks], places)
            assert [mark.get_ydata()[0] for mark in marks] == [0.95] * len(places)


def in_grey(ax, line):
    """Whether a curve enters the shaded region."""
    box = ax.collections[0].get_paths()[0].get_extents()
    x = np.geomspace(box.x0, box.x1, 2000)[1:-1]
    return any(share_at(line, place) < box.y1 for place in x)


@pytest.mark.parametrize(
    ("kwargs", "rhat_fails", "size_fails"),
    [
        ({"num_draws": 1000}, False, False),
        ({"spread": 0.4}, True, True),
        ({"num_draws": 80}, True, True),
        ({"num_chains": 16, "num_draws": 130}, False, False),
    ],
)
def test_a_curve_enters_the_grey_where_the_verdict_fails(kwargs, rhat_fails, size_fails):
    values = draws(num_values=400, **kwargs)
    found = verdict({"log-likelihoods": values})
    assert ("R-hat" in found.reason and "wanted < 1.01" in found.reason) == rhat_fails
    assert ("wanted ≥" in found.reason) == size_fails
    ax_rhat, ax_ess = plots.convergence({"nuts": found.by_kind})[0]
    (line,) = curves_of(ax_rhat, "nuts")
    assert in_grey(ax_rhat, line) == rhat_fails
    assert any(in_grey(ax_ess, line) for line in curves_of(ax_ess, "nuts")) == size_fails


def test_values_without_an_rhat_count_as_failed():
    values = draws(num_values=20)
    values[1, 50, :5] = np.nan
    found = verdict({"log-likelihoods": values})
    ax_rhat, _ = plots.convergence({"nuts": found.by_kind})[0]
    (line,) = curves_of(ax_rhat, "nuts")
    assert line.get_ydata().max() == 0.75
    assert len(ax_rhat.lines) == 1  # the verdict reads infinity: no marker
    assert found.rhat == np.inf


def test_convergence_draws_into_the_axes_given():
    _, given = plt.subplots(2, 2, figsize=(7, 5))
    axes = plots.convergence(both(), axes=given)
    assert (axes == given).all()
    assert axes[0, 0].get_legend() is not None
    assert [ax.get_ylabel() for ax in axes[:, 0]] == [f"{kind}\nshare of values below" for kind in KINDS]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nuts": {}}, r"values\['nuts'\] has the kinds \[\] and no value of any"),
        ({"nuts": {"a": FunctionSpace(*np.zeros((3, 0)), 4)}}, r"no value of \['a'\]"),
        (one() | {"hmc": {"means and sds": FunctionSpace.of(draws())}}, r"values\['hmc'\] has the kinds"),
    ],
)
def test_kinds_that_do_not_fit_are_named_in_one_sentence(values, message):
    with pytest.raises(ValueError, match=message) as error:
        plots.convergence(values)
    assert "\n" not in str(error.value)


def test_axes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"axes has shape \(2,\) but should be \(1, 2\)"):
        plots.convergence(one(), axes=plt.subplots(1, 2)[1])


@pytest.mark.parametrize("values", [np.ones(3), {}, {"nuts": np.ones(3)}, {"nuts": {"log-likelihoods": np.ones(3)}}])
def test_what_is_no_mapping_of_function_spaces_is_a_type_error(values):
    with pytest.raises(TypeError, match=r"pass \{'nuts': convergence.by_kind\}"):
        plots.convergence(values)
