"""What a figure says in words, and that a reader can read it: what the tests of every figure share."""

__all__ = ["check_apart", "visible_texts"]


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
