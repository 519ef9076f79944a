"""Find rings from representations as they are: nearest neighbours and logistic regression, nothing fine-tuned.

    python training/rings_from_representations.py --representations cnn_features_decals.parquet \\
        --data_dir data/gz_decals --output_dir out/rings_from_representations

Learns on the training split, measures on the test split, and writes ``metrics.json`` and ``precision_recall.png``. As in
Walmsley et al. 2022, MNRAS 513, 1581, section 4, with exact neighbours.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset

from skyset.errors import UserError
from skyset.explore import description
from skyset.explore.similar import Representations, load_representations
from skyset.training.common.arguments import parse
from skyset.training.common.card import metrics_table, precision_recall_figure
from skyset.training.common.linear import Logistic, neighbours_share, standard
from skyset.training.common.metrics import binary_metrics
from skyset.training.common.rings import load_rings
from skyset.training.common.runs import refuse_to_replace


@dataclass
class Arguments:
    """Vectors and labels."""

    data_dir: str = field(metadata={"help": "Folder of the survey gz_decals."})
    output_dir: str = field(metadata={"help": "For metrics.json and precision_recall.png."})
    representations: str | None = field(
        default=None, metadata={"help": "Parquet file or folder; default: polar features of the images, without training."}
    )
    catalog: str = field(default="basic", metadata={"help": "Labels: basic or advanced.", "choices": ["basic", "advanced"]})
    neighbours: int = field(default=15, metadata={"help": "Whose labels are averaged."})
    strength: float = field(default=0.01, metadata={"help": "Of the logistic regression: larger trusts the labels more."})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Replace the results of another run."})


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Learn, measure, draw; returns the metrics on the test split by method."""
    (args,) = parse((Arguments,), arguments)
    refuse_to_replace(args.output_dir, ("metrics.json", "precision_recall.png"), args.overwrite_output_dir)
    splits = load_rings(args.data_dir, args.catalog)
    found = load_representations(args.representations) if args.representations else None
    train, train_labels = vectors_of(splits["train"], found)
    test, test_labels = vectors_of(splits["test"], found)
    if found is None:
        scale = standard().fit(train)  # the parts of the description have different units
        train, test = scale.transform(train), scale.transform(test)
    scores = ring_scores(train, train_labels, test, args.neighbours, args.strength)
    metrics = {name: binary_metrics(test_labels, values) for name, values in scores.items()}
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    precision_recall_figure(test_labels, scores).savefig(folder / "precision_recall.png", dpi=110)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    print(f"{found.name if found else 'polar features'}: {len(train)} galaxies to learn from, {len(test)} to measure on")
    print(metrics_table(metrics))
    return metrics


def vectors_of(rows: Dataset, found: Representations | None) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (rows, width) and labels (rows,) of the rows that have both.

    Raises:
        UserError: no row has a vector.
    """
    if found is None:
        return np.array([description.describe(image) for image in rows["image"]]), np.asarray(rows["label"])
    place = {key: number for number, key in enumerate(found.keys)}
    matched = [(place[key], label) for key, label in zip(rows["object_id"], rows["label"], strict=True) if key in place]
    if not matched:
        raise UserError("no labelled galaxy is among the representations: are they of the same survey?")
    if len(matched) < len(rows):
        print(f"{len(rows) - len(matched)} of {len(rows)} labelled galaxies have no representation", file=sys.stderr)
    numbers, labels = zip(*matched, strict=True)
    return found.vectors[list(numbers)], np.asarray(labels)


def ring_scores(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, neighbours: int, strength: float
) -> dict[str, np.ndarray]:
    """Probabilities of a ring for the test rows, by method."""
    return {
        f"{neighbours} nearest neighbours": neighbours_share(train, labels, test, neighbours),
        "logistic regression": Logistic.fit(train, labels, strength).probability(test),
    }


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"rings_from_representations: {error}", file=sys.stderr)
        sys.exit(2)
