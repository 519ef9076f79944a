"""The model card of a photometric redshift: figures, tables over redshift, what the paper measured, and simpler models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestRegressor
from sklearn.neighbors import NearestNeighbors

from skyset.training.common import photoz_metrics as pm
from skyset.training.common.photoz_data import Galaxies
from skyset.training.common.photoz_models import PhotozModel
from skyset.training.common.photoz_trainer import metrics_of

#: Of figure 6 and the table over redshift.
EDGES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
#: Table 2 of arXiv:2410.00271: their test split, 40,914 galaxies of HSC. Not measured here.
PAPER = {
    "NN, photometry": {"bias": 0.0011, "scatter": 0.0315, "outliers": 0.0688, "mse": 0.133, "loss": 0.106},
    "CNN, images and photometry": {
        "bias": 0.0001,
        "scatter": 0.0167,
        "outliers": 0.0377,
        "mse": 0.0615,
        "loss": 0.0577,
    },
}
#: Of the training set, and of the test set, that simpler models learn from and are measured on.
MOST = 20_000
_NEIGHBOURS, _TREES = 10, 100
Pdf = tuple[np.ndarray, np.ndarray]


def simpler_models(train: Galaxies, test: Galaxies, model: PhotozModel) -> dict[str, dict[str, float]]:
    """Metrics on the test split of what needs no network: one redshift for all, and models of magnitudes.

    Their distributions are what they have: redshifts of the training set, of ten neighbours, of the trees of a forest.
    """
    grid = model.grid().numpy()
    z, true = train.z.numpy()[:MOST], test.z.numpy().astype(np.float64)
    draws = {
        "every galaxy the training set's median": np.tile(np.quantile(z, np.linspace(0.005, 0.995, 100)), (len(true), 1))
    }
    if train.photometry is not None and test.photometry is not None:
        known, asked = _features(train, model)[:MOST], _features(test, model)
        near = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(z))).fit(known).kneighbors(asked, return_distance=False)
        draws[f"{_NEIGHBOURS} neighbours in magnitudes"] = z[near]
        forest = RandomForestRegressor(_TREES, min_samples_leaf=3, max_features=0.5, random_state=0).fit(known, z)
        draws[f"random forest, {_TREES} trees"] = np.stack([tree.predict(asked) for tree in forest.estimators_], axis=1)
    return {
        name: metrics_of(np.median(values, axis=1), true, (pm.cdf_of_samples(values, grid), grid))
        for name, values in draws.items()
    }


def _features(galaxies: Galaxies, model: PhotozModel) -> np.ndarray:
    """Magnitudes, each in units of its spread, and their differences: a missing one is the mean."""
    bands = len(model.config.bands)
    magnitudes = galaxies.photometry.numpy()[:, :bands].astype(np.float64)
    mean, spread = np.array(model.config.magnitude_mean), np.array(model.config.magnitude_std)
    magnitudes = np.where(np.isfinite(magnitudes), magnitudes, mean)
    return np.concatenate([(magnitudes - mean) / spread, np.diff(magnitudes, axis=1)], axis=1)


def table_over_redshift(z_phot: np.ndarray, z_spec: np.ndarray) -> str:
    """Markdown: the paper's figure 6 as numbers."""
    names = (*pm.FIGURE_6, "scatter_paper")
    lines = [
        "| z_spec | galaxies | " + " | ".join(pm.NAMES[name] for name in names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for part in pm.by_redshift(z_phot, z_spec, EDGES):
        cells = " | ".join(f"{part[name]:.4f}" for name in names)
        lines.append(f"| {part['low']:.2f} to {part['high']:.2f} | {part['rows']:.0f} | {cells} |")
    return "\n".join(lines) + "\n"


def paper_table() -> str:
    """Markdown: what the paper says of its own models, on its own galaxies."""
    names = ("bias", "scatter", "outliers", "mse", "loss")
    lines = ["| | " + " | ".join(pm.NAMES[name] for name in names) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {model} | " + " | ".join(f"{values[name]:g}" for name in names) + " |" for model, values in PAPER.items()]
    return (
        "As printed in table 2 of Do et al. 2024 (arXiv:2410.00271), for 40,914 galaxies of HSC after 200 epochs on\n"
        "204,573. **Nothing of it was measured here**, and figures of other galaxies do not compare with it. Equation 4\n"
        "there has the scatter of z_phot - z_spec undivided; their code divides by 1 + z_spec.\n\n" + "\n".join(lines) + "\n"
    )


def figures(z_phot: np.ndarray, z_spec: np.ndarray, pdf: Pdf | None) -> dict[str, tuple[Figure, str]]:
    """By file name, a figure and the sentence below it."""
    found = {
        "redshifts.png": (
            redshift_figure(z_phot, z_spec),
            "Predicted over true redshifts of the test split; outliers are beyond the dashed lines.",
        ),
        "over_redshift.png": (
            over_redshift_figure({"this model": (z_phot, z_spec)}),
            "The paper's figure 6 for this model, in bins of the true redshift that hold ten galaxies or more.",
        ),
    }
    if pdf is not None:
        found["pit.png"] = (
            pit_figure(pm.pit(*pdf, z_spec)),
            "Where the true redshifts lie in their distributions: flat if these "
            "are right, with the 95 % range of a right one in grey.",
        )
    return found


def redshift_figure(z_phot: np.ndarray, z_spec: np.ndarray) -> Figure:
    """Predicted over true redshift, and dz below it."""
    metrics = pm.point_metrics(z_phot, z_spec)
    figure = Figure(figsize=(5.4, 6.6), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    end = float(max(np.max(z_spec), np.quantile(z_phot, 0.999))) * 1.02
    line = np.array([0, end])
    if len(z_spec) > 5000:
        axes.hexbin(z_spec, z_phot, gridsize=80, extent=(0, end, 0, end), bins="log", mincnt=1, linewidths=0, cmap="viridis")
    else:
        axes.plot(z_spec, z_phot, ".", markersize=3, alpha=0.5)
    axes.plot(line, line, color="0.3", linewidth=0.8)
    for sign in (-1, 1):
        axes.plot(line, line + sign * pm.OUTLIER * (1 + line), color="0.3", linewidth=0.8, linestyle="--")
    axes.set(xlim=(0, end), ylim=(0, end), ylabel="z_phot")
    axes.set_title(f"scatter {metrics['scatter']:.4f}, outliers {metrics['outliers']:.2%}, bias {metrics['bias']:+.4f}")
    below.plot(z_spec, (z_phot - z_spec) / (1 + z_spec), ".", markersize=2, alpha=0.4)
    below.axhline(0, color="0.3", linewidth=0.8)
    below.set(xlabel="z_spec", ylabel="dz / (1 + z_spec)", ylim=(-0.3, 0.3))
    return figure


def over_redshift_figure(models: Mapping[str, tuple[np.ndarray, np.ndarray]], fewest: int = 10) -> Figure:
    """Bias, scatter, outliers, MSE and loss in bins of the true redshift: figure 6 of the paper.

    Args:
        models: predicted and true redshifts by name.
        fewest: bins of fewer galaxies are left out.
    """
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True).ravel()
    for axes, name in zip(panels, pm.FIGURE_6, strict=False):
        for label, (z_phot, z_spec) in models.items():
            parts = [part for part in pm.by_redshift(z_phot, z_spec, EDGES) if part["rows"] >= fewest]
            middles = [(part["low"] + part["high"]) / 2 for part in parts]
            axes.plot(middles, [part[name] for part in parts], "o-", markersize=4, label=label)
        axes.set(title=pm.NAMES[name], xlabel="z_spec")
        axes.tick_params(labelbottom=True)
        if name == "bias":
            axes.axhline(0, color="0.6", linewidth=0.8)
        else:
            axes.set_ylim(bottom=0)
    for label, (_, z_spec) in list(models.items())[:1]:
        panels[-1].hist(z_spec, EDGES, histtype="step", label=label, color="0.3")
        panels[-1].set(title="galaxies in a bin", xlabel="z_spec", yscale="log")
    if len(models) > 1:
        panels[0].legend(fontsize="small")
    return figure


def pit_figure(values: np.ndarray, bins: int = 20) -> Figure:
    """Histogram of the probability integral transform."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    expected = len(values) / bins
    spread = 1.96 * np.sqrt(expected * (1 - 1 / bins))
    axes.axhspan(max(0, expected - spread), expected + spread, color="0.88", linewidth=0)
    axes.hist(values, np.linspace(0, 1, bins + 1), histtype="stepfilled", alpha=0.6)
    axes.axhline(expected, color="0.3", linewidth=0.8)
    inside = pm.coverage(values, pm.INTERVALS[0])
    axes.set(xlim=(0, 1), xlabel="PIT: share of p(z) below z_spec", ylabel="galaxies")
    axes.set_title(f"KS {pm.pit_ks(values):.3f}, {inside:.0%} within the central 68 %")
    return figure


def pdf_figure(pdf: Pdf, z_spec: np.ndarray, names: list[str]) -> Figure:
    """Distributions of a few galaxies, with their true redshifts.

    Args:
        pdf: cumulative functions (rows, nodes) and their grid.
        z_spec: (rows,) true.
        names: of the rows.
    """
    cdf, grid = pdf
    columns = min(4, len(names))
    figure = Figure(figsize=(2.7 * columns, 2.1 * -(-len(names) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axes, row, true, name in zip(panels, cdf, z_spec, names, strict=False):
        density = np.diff(row) / np.diff(grid)
        low, high = grid[np.searchsorted(row, 0.001)], grid[min(np.searchsorted(row, 0.999), len(grid) - 1)]
        margin = max(0.05, 0.15 * (high - low))
        axes.fill_between((grid[1:] + grid[:-1]) / 2, density, step="mid", alpha=0.5, linewidth=0)
        axes.axvline(true, color="0.1", linewidth=1, linestyle="--")
        axes.set(xlim=(max(0, min(low, true) - margin), max(high, true) + margin), ylim=(0, None), yticks=[], xlabel="z")
        axes.set_title(name, fontsize="small")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure
