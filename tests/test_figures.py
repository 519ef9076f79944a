"""What pictures say: where north and east are, how large things are, who answered what."""

import numpy as np
import pytest
from astropy.wcs import WCS
from matplotlib.figure import Figure

from skyset.extraction.world import compass
from skyset.figures import ARROW, VOLUNTEERS, draw_marks, image_figure, overlay_figure, votes_figure
from skyset.loaders import gz2, gz3d, gz_decals, sdss_galaxy_zoo
from skyset.questions import along, answers_of, columns


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_north_is_up_and_east_is_left_with_arrows_and_a_bar():
    axes = image_figure(np.zeros((40, 40, 3), np.uint8), scale_arcsec=0.5).axes[0]
    assert axes.get_xlim() == (10, -10) and axes.get_ylim() == (-10, 10)
    assert axes.get_xlabel() == "offset east (arcsec)" and axes.get_ylabel() == "offset north (arcsec)"
    assert texts(axes) == ["E", "N", "5 arcsec"]
    east, north = axes.texts[:2]
    assert east.get_position()[0] < east.xy[0] and north.get_position()[1] > north.xy[1]  # at the arrows' points
    assert east.arrowprops["arrowstyle"] == north.arrowprops["arrowstyle"] == "<-"
    (bar,) = axes.lines
    assert np.diff(bar.get_xdata()) * 20 == pytest.approx(5)  # of an image of 20 arcsec


def test_directions_follow_the_wcs_of_an_image():
    """North 30 deg from up towards the left, as in an image turned by 30 deg; one that is mirrored has east at the right."""
    for mirrored in (1, -1):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 60], [50, 25]
        turn = np.radians(30)
        wcs.wcs.cd = 1e-4 * np.array([[-np.cos(turn), -np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * [[mirrored], [1]]
        north, east = compass(wcs, (50, 100))
        assert north == pytest.approx([-0.5, np.sqrt(0.75)], abs=1e-3)
        assert east == pytest.approx([-np.sqrt(0.75) * mirrored, -0.5 * mirrored], abs=1e-3)
    axes = Figure().subplots()
    draw_marks(axes, (50, 100), 0.36, north, east)
    assert texts(axes) == ["E", "N", "5 arcsec"]
    start, end = (np.array(place) for place in (axes.texts[0].xy, axes.texts[0].get_position()))
    assert end - start == pytest.approx(ARROW * east)


def test_marks_are_outlined_in_the_other_colour():
    for colour, other in (("white", "black"), ("black", "white")):
        axes = Figure().subplots()
        draw_marks(axes, (50, 100), 0.36, colour=colour)
        for mark in (*axes.texts, *axes.lines, *(text.arrow_patch for text in axes.texts[:2])):
            [outline] = mark.get_path_effects()
            assert outline._gc["foreground"] == other
        assert {mark.get_color() for mark in (*axes.texts, *axes.lines)} == {colour}


def test_row_0_is_on_the_side_that_is_said():
    image = np.zeros((4, 4), np.uint8)
    image[0] = 1
    for origin in ("upper", "lower"):
        figure = overlay_figure(np.dstack([image] * 3), np.zeros((1, 4, 4)), ["a"], scale_arcsec=1, origin=origin)
        for axes in figure.axes:
            assert axes.images[0].origin == origin and tuple(axes.images[0].get_extent()) == (2, -2, -2, 2)
            assert axes.images[0].get_array()[0].max() == 1


def test_without_a_scale_there_is_no_bar():
    axes = image_figure(np.zeros((40, 40), np.float32)).axes[0]
    assert axes.get_xlabel() == "offset east (pixels)" and texts(axes) == ["E", "N"] and not axes.lines


@pytest.mark.parametrize(("width", "text"), [(3000, "10 arcmin"), (400, "1 arcmin"), (52, "10 arcsec"), (1, "0.2 arcsec")])
def test_bars_have_round_lengths(width, text):
    assert texts(image_figure(np.zeros((100, 100)), scale_arcsec=width / 100).axes[0])[-1] == text


def test_masks_tell_how_many_of_the_volunteers():
    masks = np.zeros((4, 8, 8), np.uint8)
    masks[2, 2:4, 2:4] = 12
    row = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "scale": 0.099 / 3600,
        "object_id": "1-1",
        "total_classifications": np.int32(40),
        "segmentation": {"array": masks, "vote_fraction": np.array([-1, -1, 0.8, 0.1])},
    }
    figure = gz3d.plot(row)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "center: none drawn",
        "star: none drawn",
        "spiral (80% of votes): up to 12 of 15 volunteers",
        "bar (10% of votes): none drawn",
    ]
    assert all(texts(axes)[:2] == ["E", "N"] for axes in figure.axes)


def decals(answers: dict, tag: str = "", voters: dict | None = None) -> dict:
    """A row in which nothing is given but these shares, and who answered."""
    row = {column.name: -1 if column.dtype == "int32" else np.nan for column in (*gz_decals.VOTES, *gz_decals.PHOTOMETRY)}
    for question, shares in answers.items():
        for answer, share in shares.items():
            row[f"{question}{tag}_{answer}_fraction"] = share
    return row | {f"{question}{tag}_total-votes": number for question, number in (voters or {}).items()}


TREE = {
    "smooth-or-featured": {"smooth": 0.25, "featured-or-disk": 0.75, "artifact": 0.0},
    "disk-edge-on": {"yes": 0.0, "no": 1.0},
    "has-spiral-arms": {"yes": 1.0, "no": 0.0},
    "how-rounded": {"round": 1.0, "in-between": 0.0, "cigar-shaped": 0.0},
    "spiral-winding": {"tight": 0.5, "medium": 0.5, "loose": 0.0},
}


def test_answers_go_down_the_tree_as_the_volunteers_did():
    voters = dict.fromkeys(TREE, 3) | {"smooth-or-featured": 4, "how-rounded": 1, "spiral-winding": 0}
    answers, by = answers_of(decals(TREE, voters=voters), gz_decals.SHOWN)
    assert by == "volunteers"
    assert [(each.question.name, each.share, each.voters) for each in answers] == [
        ("smooth-or-featured", 1.0, 4),
        ("disk-edge-on", 0.75, 3),
        ("has-spiral-arms", 0.75, 3),
    ]
    figure = votes_figure(None, answers, "J1", by)
    axes = figure.axes[0]
    assert axes.get_title() == "shares of the volunteers' votes"
    assert "Is there any sign of a spiral arm pattern?  (3 volunteers)" in texts(axes) and "75%" in texts(axes)
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["smooth", "featured or disk", "artifact"]


def test_the_campaign_that_asked_is_shown_and_else_predictions_are_called_so():
    earlier = {"smooth-or-featured": TREE["smooth-or-featured"]}
    answers, by = answers_of(decals(earlier, "-dr12", {"smooth-or-featured": 40}), gz_decals.SHOWN)
    assert by == "volunteers" and answers[0].question.name == "smooth-or-featured-dr12" and answers[0].voters == 40
    answers, by = answers_of(decals(TREE, "-auto"), gz_decals.SHOWN)
    assert by == "network" and [each.voters for each in answers] == [None] * len(answers)
    axes = votes_figure(np.zeros((8, 8, 3), np.uint8), answers, "J1", by).axes[1]
    assert axes.get_title() == "a network's predictions of the shares of votes"
    assert "Could this be a disk viewed edge-on?  (asked of 75%)" in texts(axes)
    assert axes.patches[0].get_facecolor()[:3] != image_colour(VOLUNTEERS)
    predicted = {f"{q}_{a}_fraction": share for q, shares in TREE.items() for a, share in shares.items()}
    (first, *_), by = answers_of(predicted, gz_decals.SHOWN)  # rings_basic has the network's shares alone, under plain names
    assert (first.shares, by) == ((0.25, 0.75, 0.0), "network")
    (first, *_), by = answers_of({"smooth-or-featured-auto_featured-or-disk_fraction": 0.5}, gz_decals.SHOWN)
    assert (first.shares[1], by) == (0.5, "network")


def image_colour(name):
    from matplotlib.colors import to_rgb

    return to_rgb(name)


def test_every_survey_of_votes_draws_its_rows():
    image = np.zeros((424, 424, 3), np.uint8)
    row = decals(TREE, voters={"smooth-or-featured": 5}) | {"object_id": "J1", "image": image}
    row |= {"petro_th50": np.float32(3), "petro_th90": np.float32(9)}
    axes = gz_decals.plot(row).axes
    assert axes[0].get_xlim()[0] == pytest.approx(212 * 0.12) and "10 arcsec" in texts(axes[0])
    assert gz_decals.pixel_scale(row | {"petro_th50": np.float32("nan")}) is None
    assert gz_decals.pixel_scale(row | {"petro_th50": 0.5, "petro_th90": 1.0}) == 0.1
    blank = {column.name: np.nan for column in columns(gz2.QUESTIONS["gz2"], gz2.MEASURES)}
    votes = {
        "t01_smooth_or_features_a01_smooth": 0.9,
        "t01_smooth_or_features_a02_features_or_disk": 0.1,
        "t01_smooth_or_features_a03_star_or_artifact": 0.0,
    }
    row = blank | {f"{stem}_weighted_fraction": share for stem, share in votes.items()} | {"object_id": "1", "image": image}
    row |= {f"{stem}_count": round(40 * share) for stem, share in votes.items()} | {"total_classifications": 40}
    axes = gz2.plot(row).axes[1]
    assert texts(axes)[0].replace("\n", " ").endswith("(40 volunteers)") and axes.get_yticklabels()[0].get_text() == "smooth"
    assert "no votes" in gz2.plot(blank | {"object_id": "1"}).axes[0].get_title()


def test_shares_that_are_not_given_are_left_out():
    assert along(gz_decals.DR5, {}, "_fraction") == []
    some = {"smooth-or-featured_featured-or-disk_fraction": 0.75, "has-spiral-arms_no_fraction": 0.25}
    answers = along(gz_decals.DR5, some, "_fraction")
    assert [(each.question.name, each.share) for each in answers] == [("smooth-or-featured", 1), ("has-spiral-arms", 1)]
    axes = votes_figure(None, answers, "J1", "network").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["featured or disk", "no"]


def test_sdss_images_have_their_own_scale():
    row = {"image": np.zeros((64, 64, 3), np.uint8), "pixel_scale": 0.5 / 3600, "object_id": "1", "label": 0}
    row |= {"redshift": 0.05, "nvote": 30, "p_el": 0.1, "p_cs": 0.8, "p_mg": 0.1}
    assert sdss_galaxy_zoo.plot(row).axes[0].get_xlim() == pytest.approx((16, -16))
