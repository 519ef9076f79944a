"""Settings of a network that says a redshift: what it is made of, and what its inputs are."""

from __future__ import annotations

from transformers import AutoConfig, PreTrainedConfig

from skyset.errors import UserError
from skyset.training.common.photoz_heads import POINT_LOSSES
from skyset.training.common.photoz_points import check_point

TRUNKS = ("nn", "cnn", "hybrid", "mlp", "convnext")
PDFS = ("point", "mixture", "bins", "bayes")
#: A ConvNeXt V2 for galaxies of a few dozen pixels.
SMALL_ENCODER = {"depths": [1, 1, 2, 1], "hidden_sizes": [24, 48, 96, 192], "patch_size": 4}
#: How often the paper's convolutions halve an image.
POOLED = 5


class PhotozConfig(PreTrainedConfig):
    """What a network is made of, and what its inputs are.

    Args:
        trunk, pdf: of ``TRUNKS`` and ``PDFS``.
        bands: of images and photometry, in their order.
        image_size: pixels a side, 0 without images.
        stretch, softening: of the flux, see `Stretch`.
        magnitude_mean, magnitude_std: of each band over the training set.
        error_mean, error_std: of the natural logarithm of the magnitudes' errors.
        z_mean, z_std: of log(1 + z) over the training set.
        z_max: where the grid of redshifts ends.
        rows: of the training set.
        point_loss: of ``POINT_LOSSES``.
        point: the redshift that a distribution becomes, of `photoz_points.POINTS`.
        components, bins: of the distribution.
        width, depth, dropout: of ``mlp`` and of the attention in ``convnext``.
        image_encoder: settings of a ConvNeXt V2.
    """

    model_type = "skyset_photoz"

    def __init__(
        self,
        trunk: str = "convnext",
        pdf: str = "mixture",
        bands: tuple[str, ...] | list[str] = ("g", "r", "i", "z", "y"),
        image_size: int = 64,
        stretch: str = "asinh",
        softening: list[float] | None = None,
        magnitude_mean: list[float] | None = None,
        magnitude_std: list[float] | None = None,
        error_mean: list[float] | None = None,
        error_std: list[float] | None = None,
        z_mean: float = 0.5,
        z_std: float = 0.3,
        z_max: float = 4.0,
        rows: int = 1,
        point_loss: str = "hsc",
        point: str = "median",
        components: int = 5,
        bins: int = 200,
        width: int = 128,
        depth: int = 3,
        dropout: float = 0.1,
        image_encoder: dict | None = None,
        **others,
    ):
        count = len(bands)
        self.trunk, self.pdf, self.bands, self.image_size = trunk, pdf, list(bands), image_size
        self.stretch, self.softening = stretch, softening or [1.0] * count
        self.magnitude_mean, self.magnitude_std = magnitude_mean or [22.0] * count, magnitude_std or [2.0] * count
        self.error_mean, self.error_std = error_mean or [-4.0] * count, error_std or [1.0] * count
        self.z_mean, self.z_std, self.z_max, self.rows = z_mean, z_std, z_max, rows
        self.point_loss, self.point, self.components, self.bins = point_loss, point, components, bins
        self.width, self.depth, self.dropout = width, depth, dropout
        self.image_encoder = dict(image_encoder or SMALL_ENCODER)
        super().__init__(**others)

    @property
    def sees_images(self) -> bool:
        return self.trunk in ("cnn", "hybrid", "convnext")

    @property
    def sees_photometry(self) -> bool:
        return self.trunk != "cnn"

    def settings(self) -> dict:
        """What makes the network what it is, by name."""
        own = {"trunk", "pdf", "bands", "image_size", "stretch", "softening", "point_loss", "components", "bins", "width"}
        own |= {"depth", "dropout", "image_encoder", "rows", "z_max", "point"}
        return {name: getattr(self, name) for name in sorted(own)}

    def check_names(self) -> None:
        """Raise UserError where a kind is asked for that there is not."""
        kinds = ("model", self.trunk, TRUNKS), ("pdf", self.pdf, PDFS), ("loss", self.point_loss, POINT_LOSSES)
        check_point(self.point)
        for name, value, known in kinds:
            if value not in known:
                raise UserError(f"no {name} {value!r}; there are {', '.join(known)}")

    def check(self) -> None:
        """Raise UserError where settings are not of a network."""
        self.check_names()
        if self.trunk in ("cnn", "hybrid") and self.image_size < 1 << POOLED:
            raise UserError(f"--model {self.trunk} halves its images {POOLED} times: {self.image_size} pixels are too few")


AutoConfig.register(PhotozConfig.model_type, PhotozConfig)
