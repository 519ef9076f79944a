"""Figures of a sample of groups: which pixels stand where, which groups are empty, what the bars say."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from skyset.group_figures import draw_group_hits, draw_stamps, groups_figure, stamps_of


def sample(rows=4, columns=5, side=24, empty=(7,)):
    """Noise of 1, a bright block that names its group: in rows 3 to 5 and columns 15 to 19 of each stamp."""
    dice = np.random.default_rng(3)
    stamps = dice.normal(0, 1, (rows, columns, side, side)).astype(np.float32)
    stamps[..., 3:6, 15:20] += 1000
    hits = np.arange(1, rows * columns + 1, dtype=np.int32) * 10
    for group in empty:
        stamps[divmod(group, columns)], hits[group] = 0, 0
    image = stamps.swapaxes(1, 2).reshape(rows * side, columns * side)
    return {"image": image, "hits": hits, "empty": hits == 0, "background_rms": np.float32(1)}


def test_stamps_are_in_the_order_of_their_groups():
    image = np.arange(96 * 120).reshape(96, 120)
    stamps = stamps_of(image, 20)
    assert stamps.shape == (4, 5, 24, 24)
    assert np.array_equal(stamps[1, 3], image[24:48, 72:96])
    assert stamps_of(np.zeros((12, 16)), 12).shape == (3, 4, 4, 4)
    assert stamps_of(np.zeros((8, 2)), 4).shape == (4, 1, 2, 2)


@pytest.mark.parametrize("shape, groups", [((96, 120), 19), ((96, 121), 20), ((96,), 4), ((0, 0), 20), ((96, 120), 0)])
def test_images_that_are_no_stamps(shape, groups):
    with pytest.raises(ValueError, match="square stamps"):
        stamps_of(np.zeros(shape), groups)


def test_each_stamp_is_drawn_at_its_place_with_its_row_0_below():
    row, axes = sample(), Figure().subplots()
    draw_stamps(axes, row["image"], row["empty"], 1.0)
    (drawn,) = axes.get_images()
    pixels = drawn.get_array()
    assert pixels.shape == (96, 120) and drawn.get_extent() == [0, 5, 4, 0]
    white = np.zeros((24, 24), bool)
    white[24 - 6 : 24 - 3, 15:20] = True
    for group in set(range(20)) - {7}:
        down, across = divmod(group, 5)
        assert np.array_equal(pixels[24 * down :, 24 * across :][:24, :24] > 0.9, white), group


def test_empty_groups_are_hatched_and_others_are_not():
    row, axes = sample(empty=(7, 13)), Figure().subplots()
    draw_stamps(axes, row["image"], row["empty"])
    hatched = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert hatched == [(2, 1), (3, 2)]
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("empty") == 2 and [text for text in texts if text != "empty"] == [str(n) for n in range(20)]


def test_noise_alone_stays_grey_and_a_stamp_without_numbers_is_drawn():
    image = np.random.default_rng(0).normal(0, 1, (24, 48))
    image[:, 24:] = np.nan
    axes = Figure().subplots()
    draw_stamps(axes, image, np.zeros(2, bool), 1.0)
    pixels = axes.get_images()[0].get_array()
    assert pixels[:, :24].max() < 0.8 and np.isfinite(pixels).all()


def test_bars_are_the_hits():
    axes = Figure().subplots()
    draw_group_hits(axes, np.array([3, 0, 1200]))
    assert [bar.get_width() for bar in axes.patches] == [3, 0, 1200]
    assert [text.get_text() for text in axes.texts] == ["3", "0", "1,200"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first group at the top
    draw_group_hits(axes := Figure().subplots(), np.array([0.25, 0.75]), shares=True)
    assert [text.get_text() for text in axes.texts] == ["25.0%", "75.0%"]
    draw_group_hits(Figure().subplots(), np.zeros(20, np.int32))


def test_the_figure_of_a_row(tmp_path):
    figure = groups_figure(sample(), "979412p_07: BT", "r.MP9601")
    stamps, bars = figure.axes
    assert figure.get_suptitle() == "979412p_07: BT" and stamps.get_xlabel() == "r.MP9601"
    assert "24 x 24 pixels" in stamps.get_title() and bars.get_title() == "hits: 2,020 sources"
    figure.savefig(tmp_path / "row.png")
    assert len(groups_figure(sample(15, 16, 8), "").axes) == 2
    assert len(groups_figure(sample(empty=range(20)), "nothing").axes) == 2
