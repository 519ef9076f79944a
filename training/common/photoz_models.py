"""Networks that say a redshift from images, photometry or both, as `transformers` models.

``nn`` and ``hybrid`` are those of Do et al. 2024 (arXiv:2410.00271) layer by layer, after the code that they publish with
it; ``cnn`` is the part of ``hybrid`` that sees images. ``mlp`` reads magnitudes with their errors, and may miss some.
``convnext`` is a ConvNeXt V2 whose map becomes tokens, beside one token a band of photometry, which attend to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import AutoModel, ConvNextV2Config, ConvNextV2Model, PreTrainedModel
from transformers.utils import ModelOutput

from skyset.training.common.photoz_config import POOLED, PhotozConfig
from skyset.training.common.photoz_heads import BayesianLast, Bins, Mixture, Point
from skyset.training.common.photoz_points import point

#: Of the paper's convolutions: channels and activation; each of the first five is followed by max-pooling.
_CONVOLUTIONS = ((32, "tanh"), (64, "tanh"), (128, "tanh"), (256, "tanh"), (256, "tanh"), (512, "relu"), (512, "relu"))
#: Nodes of the grid on which distributions are given: 0.2 % of 1 + z apart.
NODES = 801


@dataclass
class PhotozOutput(ModelOutput):
    """``logits`` (rows, numbers): what the last layer says, which ``PhotozModel.head`` reads."""

    logits: Tensor | None = None


class Photometry(nn.Module):
    """Magnitudes and errors as they are in the catalogue, to numbers about 0, and 1 where one is missing.

    Their statistics are saved with the weights. A magnitude is missing where it or its error is not finite, its error where
    that is not above 0.
    """

    def __init__(self, config: PhotozConfig):
        super().__init__()
        self.bands = len(config.bands)
        for name in ("magnitude_mean", "magnitude_std", "error_mean", "error_std"):
            self.register_buffer(name, torch.tensor(getattr(config, name), dtype=torch.float32))

    def forward(self, photometry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Magnitudes, logarithms of errors, and what is missing, each (rows, bands); of (rows, 2 bands)."""
        magnitudes, errors = photometry.float().split(self.bands, dim=1)
        missing = ~torch.isfinite(magnitudes)
        scaled = (magnitudes - self.magnitude_mean) / self.magnitude_std
        known = torch.isfinite(errors) & (errors > 0)
        logarithm = (torch.where(known, errors, 1.0).log() - self.error_mean) / self.error_std
        return (
            torch.where(missing, 0.0, scaled),
            torch.where(known & ~missing, logarithm, 0.0),
            torch.stack([missing, ~known], 1).any(1).float(),
        )


def _dense(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), activation())))


def _through(trunk: nn.Module, stage: nn.Module, values: Tensor) -> Tensor:
    """A stage's result; with ``--gradient_checkpointing`` computed again where gradients need what is inside it."""
    if trunk.gradient_checkpointing and trunk.training:
        return trunk._gradient_checkpointing_func(stage.__call__, values)
    return stage(values)


class PaperNN(nn.Module):
    """Four layers of 200 on magnitudes, joined with the magnitudes themselves."""

    def __init__(self, config: PhotozConfig):
        super().__init__()
        bands = len(config.bands)
        self.photometry, self.layers, self.features = Photometry(config), _dense([bands, *[200] * 4], nn.ReLU), bands + 200

    def forward(self, pixel_values: Tensor | None, photometry: Tensor) -> Tensor:
        magnitudes = self.photometry(photometry)[0]
        return torch.cat([magnitudes, self.layers(magnitudes)], dim=1)


class PaperCNN(nn.Module):
    """Seven convolutions of 3 x 3, five max-poolings, and dense layers of 512, 128 and 32."""

    gradient_checkpointing = False

    def __init__(self, config: PhotozConfig):
        super().__init__()
        channels = [len(config.bands), *(number for number, _ in _CONVOLUTIONS)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1),
                nn.Tanh() if kind == "tanh" else nn.ReLU(),
                *([nn.MaxPool2d(2)] if place < POOLED else []),
            )
            for place, (before, (after, kind)) in enumerate(zip(channels, _CONVOLUTIONS, strict=False))
        )
        side = config.image_size >> POOLED
        self.dense, self.features = _dense([channels[-1] * side * side, 512, 128, 32], nn.Tanh), 32

    def forward(self, pixel_values: Tensor, photometry: Tensor | None = None) -> Tensor:
        for stage in self.stages:
            pixel_values = _through(self, stage, pixel_values)
        return self.dense(pixel_values.flatten(1))


class PaperHybrid(nn.Module):
    """`PaperCNN`, joined with six layers of 200 on magnitudes."""

    def __init__(self, config: PhotozConfig):
        super().__init__()
        self.images, self.photometry = PaperCNN(config), Photometry(config)
        self.layers, self.features = _dense([len(config.bands), *[200] * 6], nn.ReLU), self.images.features + 200

    def forward(self, pixel_values: Tensor, photometry: Tensor) -> Tensor:
        return torch.cat([self.images(pixel_values), self.layers(self.photometry(photometry)[0])], dim=1)


class MLP(nn.Module):
    """Residual blocks on magnitudes, errors, colours and what is missing."""

    def __init__(self, config: PhotozConfig):
        super().__init__()
        bands, self.features = len(config.bands), config.width
        self.photometry, self.first = Photometry(config), nn.Linear(4 * bands - 1, config.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(config.width),
                nn.Linear(config.width, 2 * config.width),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(2 * config.width, config.width),
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, pixel_values: Tensor | None, photometry: Tensor) -> Tensor:
        magnitudes, errors, missing = self.photometry(photometry)
        # Differences of magnitudes on their own scale, a factor of ten finer than that of the magnitudes.
        unscaled = magnitudes * self.photometry.magnitude_std + self.photometry.magnitude_mean
        colours = unscaled.diff(dim=1) * (1 - (missing[:, 1:] + missing[:, :-1]).clamp(max=1))
        hidden = self.first(torch.cat([magnitudes, errors, missing, colours], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.norm(hidden)


class ConvNext(nn.Module):
    """Tokens of an image's map and of photometry attend to each other; what the first token then holds is the result."""

    gradient_checkpointing = False

    def __init__(self, config: PhotozConfig):
        super().__init__()
        settings = ConvNextV2Config(num_channels=len(config.bands), image_size=config.image_size, **config.image_encoder)
        encoder = ConvNextV2Model(settings)  # its pooling and what follows is left
        self.stem, self.stages, self.photometry = encoder.embeddings, encoder.encoder.stages, Photometry(config)
        self.features = config.width
        self.of_map, self.of_band = nn.Linear(settings.hidden_sizes[-1], config.width), nn.Linear(3, config.width)
        self.band = nn.Parameter(torch.zeros(len(config.bands), config.width))
        self.catalogue, self.norm = MLP(config), nn.LayerNorm(config.width)
        layer = nn.TransformerEncoderLayer(
            config.width, 4, 2 * config.width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.attention = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, pixel_values: Tensor, photometry: Tensor) -> Tensor:
        image = self.stem(pixel_values)
        for stage in self.stages:
            image = _through(self, stage, image)
        image = self.of_map(image.flatten(2).transpose(1, 2))
        bands = self.of_band(torch.stack(self.photometry(photometry), dim=2)) + self.band
        first = self.catalogue(None, photometry)[:, None]
        return self.norm(self.attention(torch.cat([first, bands, image], dim=1))[:, 0])


_TRUNKS = {"nn": PaperNN, "cnn": PaperCNN, "hybrid": PaperHybrid, "mlp": MLP, "convnext": ConvNext}


class PhotozModel(PreTrainedModel):
    """A trunk that makes numbers of a galaxy, and a head that makes a redshift of them.

    Args:
        config: of the network.

    Raises:
        UserError: settings that are not of a network.
    """

    config_class = PhotozConfig
    base_model_prefix = "trunk"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: PhotozConfig):
        super().__init__(config)
        config.check()
        self.trunk = _TRUNKS[config.trunk](config)
        features, scale = self.trunk.features, (config.z_mean, config.z_std)
        self.head: Point | Mixture | Bins | BayesianLast = {
            "point": lambda: Point(features, config.point_loss),
            "mixture": lambda: Mixture(features, config.components, *scale),
            "bins": lambda: Bins(features, config.bins, config.z_max),
            "bayes": lambda: BayesianLast(features, config.rows, *scale),
        }[config.pdf]()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Glorot's uniform weights and no offsets in the paper's networks, as Keras begins; as PyTorch begins in others."""
        if isinstance(module, (nn.Linear, nn.Conv2d)) and self.config.trunk in ("nn", "cnn", "hybrid"):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self, pixel_values: Tensor | None = None, photometry: Tensor | None = None, labels: Tensor | None = None
    ) -> PhotozOutput:
        """What the head says; ``labels`` are not looked at.

        Args:
            pixel_values: (rows, bands, size, size), stretched: see `FluxViews`.
            photometry: (rows, 2 bands): magnitudes, then their errors, as the catalogue has them; NaN where missing.
            labels: redshifts (rows,).
        """
        features = self.trunk(pixel_values, photometry)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 has redshifts in steps of 0.4 %
            return PhotozOutput(logits=self.head(features.float()))

    @property
    def gives_pdf(self) -> bool:
        return not isinstance(self.head, Point)

    def grid(self) -> Tensor:
        """Redshifts of the nodes of distributions, (nodes,), equally far apart in log(1 + z)."""
        end = torch.log1p(torch.tensor(float(self.config.z_max), dtype=torch.float64))
        return torch.expm1(torch.linspace(0, 1, NODES, dtype=torch.float64) * end)

    @torch.no_grad()
    def cdf(self, logits: Tensor) -> Tensor:
        """Cumulative functions on ``grid``, float32 (rows, nodes): of logits (rows, numbers), or the mean over (rows, views,
        numbers). What lies beyond the grid is folded in, so that they run from 0 to 1."""
        views = logits[:, None] if logits.ndim == 2 else logits
        nodes = self.grid().to(views.device, torch.float32)
        cdf = sum(self.head.cdf(views[:, view], nodes) for view in range(views.shape[1])) / views.shape[1]
        low, high = cdf[:, :1], cdf[:, -1:]
        return ((cdf - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)

    @torch.no_grad()
    def redshift(self, logits: Tensor) -> Tensor:
        """The head's number, or what ``config.point`` makes of p(z), float32 (rows,); ``logits`` as for ``cdf``."""
        if isinstance(self.head, Point):
            return (logits if logits.ndim == 2 else logits.mean(1))[:, 0].float()
        return torch.from_numpy(point(self.cdf(logits).cpu().numpy(), self.grid().numpy(), self.config.point)).float()


AutoModel.register(PhotozConfig, PhotozModel)
