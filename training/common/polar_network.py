"""A small convolutional network on polar grids: turning a galaxy shifts the grid, and the network does not care."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from skyset.training.common.simulated import AMOUNTS, PRESENT, simulate


class PolarBlock(nn.Module):
    """3 x 3 convolution, batch normalisation, ReLU; the grid is periodic in angle and repeats its ends in radius."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(functional.pad(x, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate")
        return functional.relu(self.norm(self.convolution(x)))


class PolarNetwork(nn.Module):
    """From light on a polar grid to a vector, and from there to scores.

    Args:
        outputs: how many scores.
        radii: of the grid, a multiple of 4.
        width: channels of the first layer.
    """

    def __init__(self, outputs: int, radii: int = 32, width: int = 24, representation: int = 96):
        super().__init__()
        self.layers = nn.Sequential(
            PolarBlock(2, width),
            nn.AvgPool2d((1, 2)),
            PolarBlock(width, width),
            nn.AvgPool2d(2),
            PolarBlock(width, 2 * width),
            PolarBlock(2 * width, 2 * width),
            nn.AvgPool2d(2),
            PolarBlock(2 * width, 3 * width),
        )
        self.project = nn.Sequential(nn.Linear(3 * width * 2 * (radii // 4), representation), nn.ReLU())
        self.head = nn.Linear(representation, outputs)

    def represent(self, light: Tensor) -> Tensor:
        """(batch, representation) from light (batch, radii, angles): mean and maximum over the angle."""
        maps = self.layers(channels(light))
        return self.project(torch.cat([maps.mean(dim=3), maps.amax(dim=3)], dim=1).flatten(1))

    def forward(self, light: Tensor) -> Tensor:
        return self.head(self.represent(light))


def channels(light: Tensor) -> Tensor:
    """The light, and its excess over the smoothed mean profile, in which a ring stands out: (batch, 2, radii, angles)."""
    profile = light.mean(dim=2)[:, None]
    smooth = functional.avg_pool1d(functional.pad(profile, (4, 4), mode="replicate"), 9, stride=1)[:, 0, :, None]
    return torch.stack([(light - 1.8) / 1.2, (light - smooth) * 2], dim=1)  # about zero mean and unit spread


def pretrain(steps: int, radii: int, angles: int, seed: int, batch: int = 192, lr: float = 3e-3) -> PolarNetwork:
    """A network that tells what simulated galaxies are made of; it has seen no real image and no real label."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = PolarNetwork(len(PRESENT) + len(AMOUNTS), radii)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        light, present, amounts = simulate(batch, radii, angles, generator)
        scores = network(light)
        loss = functional.binary_cross_entropy_with_logits(scores[:, : len(PRESENT)], present)
        loss = loss + 0.5 * functional.smooth_l1_loss(scores[:, len(PRESENT) :], amounts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def train_on_labels(
    network: PolarNetwork,
    light: Tensor,
    labels: Tensor,
    epochs: int,
    lr: float,
    seed: int,
    from_scratch: bool,
    batch: int = 32,
) -> PolarNetwork:
    """Train a network with one score on real galaxies; every time, a galaxy is another of its views, turned and mirrored.

    Args:
        light: (galaxies, views, radii, angles).
        labels: (galaxies,) 0 or 1, float.
        lr: of everything, if ``from_scratch``; else of the representation, while the head learns ten times as fast, the
            layers below at a third of it, and batch normalisation stays as it was found.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    factors = (1, 1, 1) if from_scratch else (0.3, 1, 10)
    modules = (network.layers, network.project, network.head)
    parts = [(part, lr * factor) for part, factor in zip(modules, factors, strict=True)]
    optimizer = torch.optim.AdamW([{"params": part.parameters(), "lr": rate} for part, rate in parts], weight_decay=0.05)
    steps = epochs * -(-len(light) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [rate for _, rate in parts], total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        network.train(from_scratch)
        for rows in torch.randperm(len(light), generator=generator).split(batch):
            seen = light[rows, torch.randint(light.shape[1], (len(rows),), generator=generator)]
            seen = seen.roll(int(torch.randint(light.shape[3], (), generator=generator)), dims=2)
            if torch.rand((), generator=generator) < 0.5:
                seen = seen.flip(2)
            score = network.head(functional.dropout(network.represent(seen), 0.3))[:, 0]
            loss = functional.binary_cross_entropy_with_logits(score, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def mean_over_views(function, light: Tensor) -> Tensor:
    """``function`` of each view (galaxies, radii, angles), averaged over those of light (galaxies, views, radii, angles)."""
    return torch.stack([function(light[:, view]) for view in range(light.shape[1])]).mean(dim=0)
