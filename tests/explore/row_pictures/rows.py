"""Rows to draw: of a galaxy in bands, of a spectrum with lines, of a supernova, by MultimodalUniverse's names."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


def laid_out(figure, dpi=50):
    """The figure, after all of it has been drawn once."""
    figure.set_dpi(dpi)
    FigureCanvasAgg(figure).draw()
    return figure


def bands(names, side=48, seed=0, noise=0.01):
    """A round galaxy at the middle, redder inside, with a star that is as bright in all bands in the lower left (row 8)."""
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    radius = np.hypot(x - side / 2, y - side / 2)
    star = 2 * np.exp(-((x - 8) ** 2 + (y - 8) ** 2) / 4)
    scale = np.linspace(9, 5, len(names))
    planes = [k**0.5 * np.exp(-radius / width) + star for k, width in enumerate(scale, 1)]
    flux = np.stack(planes) + dice.normal(0, noise, (len(names), side, side))
    return {"band": list(names), "flux": flux.astype(np.float32), "scale": np.full(len(names), 0.2, np.float32)}


def spectrum(pixels=2000, redshift=0.1, signal=20.0, seed=0):
    """A flat spectrum of 5 with H alpha; pixels 100 to 109 are masked."""
    dice = np.random.default_rng(seed)
    wave = np.linspace(3800, 9200, pixels)
    flux = 5 + 20 * np.exp(-((wave - 6564.61 * (1 + redshift)) ** 2) / 50) + dice.normal(0, 5 / signal, pixels)
    mask = np.zeros(pixels, bool)
    mask[100:110] = True
    ivar = np.where(mask, 0, (signal / 5) ** 2)
    values = {"flux": flux, "ivar": ivar, "lambda": wave}
    return {name: value.astype(np.float32) for name, value in values.items()} | {"mask": mask}


def light_curve(names=("g", "r", "i"), points=10, start=59000.0):
    """So many points a band, one band after the other; the flux is 1, 2, ... by band."""
    time = start + np.tile(np.arange(points, dtype=float), len(names))
    flux = np.repeat(np.arange(1.0, len(names) + 1), points)
    return {"band": [name for name in names for _ in range(points)], "time": time, "flux": flux, "flux_err": 0.1 + 0 * flux}
