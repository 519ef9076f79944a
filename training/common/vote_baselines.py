"""What a network that expects votes has to beat, beside always expecting the same: a linear model of polar features."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skyset.explore import description
from skyset.training.common.vote_data import Votes
from skyset.training.common.votes import STRONGEST, concentrations, votes_loss

#: Of the weights' penalty: the one that serves the validation split best is taken.
STRENGTHS = (1e-3, 1e-2, 1e-1)
COMPONENTS = 30


def linear_strengths(images: dict[str, Iterable], votes: dict[str, Votes], constants: np.ndarray) -> np.ndarray:
    """Concentrations (rows, answers) for the test rows, by a linear model of the leading components of polar features.

    Args:
        images: of train, validation and test.
        votes: likewise.
        constants: of the training rows; the model begins there.
    """
    described = {name: np.array([description.describe(image) for image in part]) for name, part in images.items()}
    count = min(COMPONENTS, len(described["train"]) - 1, described["train"].shape[1])
    scaled = make_pipeline(StandardScaler(), PCA(count, whiten=True, svd_solver="full")).fit(described["train"])
    inputs = {name: torch.from_numpy(scaled.transform(part)).double() for name, part in described.items()}
    counts = {name: torch.from_numpy(part.counts).double() for name, part in votes.items()}
    fitted = [fit(inputs["train"], counts["train"], votes["train"].tree, constants, strength) for strength in STRENGTHS]
    losses = [
        float(votes_loss(counts["validation"], expected(inputs["validation"], *model), votes["train"].tree).sum())
        for model in fitted
    ]
    return expected(inputs["test"], *fitted[int(np.argmin(losses))]).numpy()


def expected(inputs: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Concentrations (rows, answers)."""
    return concentrations(inputs @ weights + bias).double()


def fit(inputs: torch.Tensor, counts: torch.Tensor, tree, constants: np.ndarray, strength: float):
    """Weights (inputs, answers) and bias (answers,) at the minimum of the loss and a penalty."""
    share = torch.from_numpy((constants - 1) / STRONGEST).clamp(1e-3, 1 - 1e-3)
    weights = torch.zeros(inputs.shape[1], counts.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.logit(share).clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = votes_loss(counts, expected(inputs, weights, bias), tree).sum(dim=1).mean() + strength * (weights**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach(), bias.detach()
