"""What a figure says in words, and that a reader can read it: what the tests of every figure share."""

import matplotlib as mpl
from matplotlib.text import Text

import hmcvi.plots as plots

__all__ = ["check_apart", "check_score_panels", "drawn_on_a_page", "visible_texts"]


def visible_texts(figure):
    """Every text that is drawn, with its box in pixels."""
    found = [*figure.texts]
    for legend in figure.legends:
        found += legend.get_texts()
    for ax in figure.axes:
        found += [*ax.texts, ax.title]
        if ax.get_legend() is not None:
            found += ax.get_legend().get_texts()
        if not ax.axison:
            continue
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            found += [axis.label, *(tick.label1 for tick in ticks if low <= tick.get_loc() <= high)]
    shown = [t for t in found if t.get_visible() and t.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


def check_apart(figure, texts):
    """No text leaves the figure or overlaps another; texts are (text, box in pixels)."""
    for place, (text, box) in enumerate(texts):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1
        assert inside, f"{text!r} leaves the figure: {box} in {figure.bbox}"
        for other, other_box in texts[:place]:
            width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert min(width, height) < 1, f"{text!r} overlaps {other!r}"


def drawn_on_a_page(draw):
    """The figure that ``draw`` makes, drawn: no wider than a page, and matplotlib's settings are left alone."""
    before = dict(mpl.rcParams)
    figure = draw()
    assert dict(mpl.rcParams) == before
    assert plots.COLUMN_WIDTH <= figure.get_figwidth() <= plots.PAGE_WIDTH
    figure.canvas.draw()
    for ax in figure.axes:
        if not ax.get_visible():
            ax.set_axis_off()  # a hidden panel says nothing
    return figure


def check_score_panels(draw, titles, *, num_titles):
    """The panels that ``draw`` returns fit a page, with their texts and as many of ``titles`` whole and apart.

    They are returned, drawn. Matplotlib's settings are left alone.
    """
    before = dict(mpl.rcParams)
    axes = draw()
    assert dict(mpl.rcParams) == before
    figure = axes[0].get_figure()
    assert plots.COLUMN_WIDTH <= figure.get_figwidth() <= plots.PAGE_WIDTH
    figure.canvas.draw()
    texts = visible_texts(figure)
    # The title stands where the other figures have none: over the legend, or left above the first panel.
    heads = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() in titles)
    assert len(heads) == num_titles
    texts += [(head.get_text(), head.get_window_extent()) for head in heads]
    # A legend's handles stand apart from the panels too.
    legends = [*figure.legends, *(ax.get_legend() for ax in axes if ax.get_legend())]
    (covered,) = (legend.get_window_extent() for legend in legends)
    assert not any(covered.overlaps(ax.get_window_extent()) for ax in axes)
    check_apart(figure, texts)
    return axes
