"""How well rings can be found from 350 labelled galaxies alone, without downloaded weights: cross-validated, on a laptop.

    python training/rings_on_350.py --data_dir data/gz_decals --output_dir out/rings_on_350

Five stratified folds, repeated with other seeds. Every method learns on four folds and is scored on the fifth; what is
chosen (the strength of a logistic regression) is chosen by folds within those four, all other settings stand below and are
the same for every fold. One network is pretrained on simulated galaxies; it has seen none of the images. The card says what
came out, whatever it is.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from transformers import set_seed

from skyset.errors import UserError
from skyset.explore import description as polar
from skyset.loaders.gz_decals import CITATION, CLASSES
from skyset.training.common.arguments import parse
from skyset.training.common.baselines import components_scores, fractions, thumbnail
from skyset.training.common.card import CALIBRATION, Card, Measured, calibration_figure, roc_figure
from skyset.training.common.data import revision_of
from skyset.training.common.images import LabelledImages
from skyset.training.common.linear import KernelLogistic, Logistic, sigmoid, stratified_folds
from skyset.training.common.metrics import auc, binary_metrics, bootstrap_errors, interval
from skyset.training.common.models import load_classifier
from skyset.training.common.polar_network import PolarNetwork, mean_over_views, pretrain, train_on_labels
from skyset.training.common.rings import LICENCE, galaxies_text, load_rings
from skyset.training.common.runs import refuse_to_replace, versions
from skyset.training.common.trainer import ImageTrainer
from skyset.training.common.training_arguments import ImageTrainingArguments
from skyset.training.common.views import Views

FOLDS = 5
RADII, ANGLES = 32, 48  # of the polar grids that networks see
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
CONVNEXT = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 128]}
COMBINED = "mean of the two before"
FILES = ("README.md", "auc.json", "roc.png", "calibration.png")


@dataclass
class Arguments:
    """Which galaxies, and how long it may take."""

    data_dir: str = field(metadata={"help": "Folder of the survey gz_decals."})
    output_dir: str = field(metadata={"help": "Where the card and its figures go.", "aliases": ["--card_dir"]})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Replace a card that is there."})
    held_out: str | None = field(
        default=None,
        metadata={
            "help": "JSON of a check on other galaxies that somebody made, for the card: see "
            "model_cards/rings_gz_decals_350/held_out.json."
        },
    )
    repeats: int = field(default=3, metadata={"help": "Times five folds, with other seeds."})
    network_repeats: int = field(default=1, metadata={"help": "The same, for networks from a random start."})
    views: int = field(default=12, metadata={"help": "Polar views of a galaxy, about slightly different ellipses."})
    networks: int = field(default=1, metadata={"help": "Pretrained, with other seeds, and averaged."})
    pretraining_steps: int = field(default=1400, metadata={"help": "Batches of 192 simulated galaxies."})
    epochs: int = field(default=10, metadata={"help": "Of fine-tuning the pretrained network."})
    scratch_epochs: int = field(default=60, metadata={"help": "Of the same network from a random start."})
    convnext_steps: int = field(default=400, metadata={"help": "Of a small ConvNeXt V2 from a random start, batches of 32."})
    seed: int = field(default=0, metadata={"help": "Of everything."})
    threads: int = field(default=1, metadata={"help": "Of torch. Another number adds up in another order."})

    def __post_init__(self):
        for name in ("repeats", "network_repeats", "views", "networks", "pretraining_steps", "epochs", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be 1 or more, not {getattr(self, name)}")


@dataclass
class Galaxies:
    """All galaxies, in the forms that the methods want.

    Args:
        rows: of the dataset.
        labels: (galaxies,).
        votes: (galaxies, 3) of the catalogue, or None.
        pixels, profiles, description: (galaxies, numbers).
        light: (galaxies, views, radii, angles) arcsinh of the mean light on polar grids, the first about the fitted ellipse.
    """

    rows: Dataset
    labels: np.ndarray
    votes: np.ndarray | None
    pixels: np.ndarray
    profiles: np.ndarray
    description: np.ndarray
    light: Tensor


@dataclass
class Fold:
    """Rows to learn from and rows to score, and the seed of whatever is random."""

    train: np.ndarray
    test: np.ndarray
    seed: int


Method = Callable[[Galaxies, Fold], np.ndarray]


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure every method and write the card; returns mean, interval and spread of the AUC by method."""
    (args,) = parse((Arguments,), arguments)
    refuse_to_replace(args.output_dir, FILES, args.overwrite_output_dir)
    held_out = read_held_out(args.held_out)
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    galaxies = read(args.data_dir, args.views, args.seed)
    spent = {"reading": time.perf_counter() - started}
    pretrained = [pretrain(args.pretraining_steps, RADII, ANGLES, args.seed + number) for number in range(args.networks)]
    spent["pretraining"] = time.perf_counter() - started - spent["reading"]
    print(
        f"{len(galaxies.labels)} galaxies, {galaxies.labels.sum()} rings; pretrained in {spent['pretraining']:.0f} s",
        flush=True,
    )

    representation = np.column_stack([mean_over_views(network.represent, galaxies.light) for network in pretrained])
    ring_score = mean_over_views(lambda light: sum(network(light)[:, 0] for network in pretrained), galaxies.light).numpy()
    both = np.column_stack([galaxies.description, representation])
    found: dict[str, np.ndarray] = {}
    table: dict[str, dict[str, float]] = {}

    def measure(name: str, method: Method, repeats: int = args.repeats) -> None:
        before = time.perf_counter()
        found[name] = cross_validate(method, galaxies, repeats, args.seed)
        table[name] = summary(found[name], galaxies.labels, args.seed, time.perf_counter() - before)
        print(described(name, table[name]), flush=True)

    if galaxies.votes is not None:
        measure("catalogue's vote fractions, logistic regression", plain(galaxies.votes, 1.0))
    measure("30 principal components, logistic regression", components)
    measure("radial profiles, logistic regression", plain(galaxies.profiles, 0.1))
    measure("polar features, logistic regression", selected(galaxies.description))
    measure("polar features, kernel logistic regression", kernel)
    measure("ConvNeXt V2 from scratch", convnext_from_scratch(args.convnext_steps), args.network_repeats)
    measure("polar network from scratch", from_scratch(args.scratch_epochs), args.network_repeats)
    measure("polar network, simulations only (no real label)", lambda _, fold: ring_score[fold.test], 1)
    measure("its representations, logistic regression", selected(representation))
    measure("its representations and polar features, logistic regression", selected(both))
    measure("polar network, pretrained on simulations, fine-tuned", fine_tuned(pretrained, args.epochs))
    two = [list(found)[-2], list(found)[-1]]
    found[COMBINED] = (found[two[0]] + found[two[1]]) / 2
    table[COMBINED] = summary(found[COMBINED], galaxies.labels, args.seed, sum(table[name]["seconds"] for name in two))
    spent["all"] = time.perf_counter() - started
    print(f"{described(COMBINED, table[COMBINED])}; all in {spent['all']:.0f} s")

    path = card(args, galaxies, found, table, spent, held_out).save(Path(args.output_dir))
    (path.parent / "auc.json").write_text(json.dumps({"table": table, "seconds": spent}, indent=1))
    print(f"card: {path}")
    return table


def described(name: str, row: dict[str, float]) -> str:
    return f"{name}: AUC {row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['seconds']:.0f} s"


def read_held_out(path: str | None) -> dict | None:
    """A check on other galaxies, as ``--held_out`` gives it.

    Raises:
        UserError: no such file, or something is missing in it.
    """
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text())
        numbers = [found["model"][name] for name in ("auc", "low", "high")] + [found["radial_profiles"]["auc"]]
        if not isinstance(found["galaxies"], int) or not all(0 <= float(number) <= 1 for number in numbers):
            raise ValueError("an AUC is not between 0 and 1, or galaxies is not a number")
        return found | {"source": str(found["source"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--held_out {path} cannot be used: {error!r}") from error


def read(data_dir: str, views: int, seed: int) -> Galaxies:
    """All splits together: the folds are drawn anew.

    Raises:
        UserError: no such data.
    """
    rows = concatenate_datasets(list(load_rings(data_dir).values()))
    rng = np.random.default_rng(seed)
    pixels, description, light = [], [], []
    for row in rows:
        bands = polar.as_bands(row["image"])
        ellipse = polar.outline(bands)
        pixels.append(thumbnail(row["image"]))
        description.append(np.concatenate([part.ravel() for part in polar.parts_of(bands, ellipse).values()]))
        grids = [ellipse, *(jittered(ellipse, rng) for _ in range(views - 1))]
        light.append([polar.unwrap(bands, grid, RADII, ANGLES).mean(axis=0) for grid in grids])
    described = np.array(description)
    scaled = np.arcsinh(np.array(light, np.float32) / polar.SOFTENING)
    labels = np.asarray(rows["label"])
    profiles = described[:, : 3 * polar.RADII]
    return Galaxies(rows, labels, fractions(rows), np.array(pixels), profiles, described, torch.from_numpy(scaled))


def jittered(ellipse: polar.Ellipse, rng: np.random.Generator) -> polar.Ellipse:
    """An ellipse that might as well have been fitted."""
    major, ratio, angle = rng.normal(size=3) * (0.12, 0.08, 0.08)
    return polar.Ellipse(
        ellipse.major * float(np.exp(major)),
        float(np.clip(ellipse.ratio * np.exp(ratio), 0.2, 1)),
        ellipse.angle + float(angle),
    )


def cross_validate(method: Method, galaxies: Galaxies, repeats: int, seed: int) -> np.ndarray:
    """Scores of every galaxy by a model that has not seen it: (repeats, galaxies) log-odds."""
    scores = np.empty((repeats, len(galaxies.labels)))
    for repeat in range(repeats):
        fold_of = stratified_folds(galaxies.labels, FOLDS, seed + repeat)
        for number in range(FOLDS):
            train, test = np.flatnonzero(fold_of != number), np.flatnonzero(fold_of == number)
            fold = Fold(train, test, 1000 * (seed + repeat) + number)
            scores[repeat, fold.test] = method(galaxies, fold)
    return scores


def summary(scores: np.ndarray, labels: np.ndarray, seed: int, seconds: float) -> dict[str, float]:
    """AUC averaged over the folds of a repeat: its mean and standard deviation over repeats; and AUC of pooled scores.

    ``low`` to ``high`` is a 95 % interval of the mean: the galaxies are drawn again, their scores stay.
    """
    by_repeat, pooled, drawn = [], [], []
    for repeat, values in enumerate(scores):
        fold_of = stratified_folds(labels, FOLDS, seed + repeat)
        of_folds = [auc(labels[fold_of == number], values[fold_of == number]) for number in range(FOLDS)]
        by_repeat.append(np.mean(of_folds))
        pooled.append(auc(labels, values))
        drawn.append(redrawn(labels, values, fold_of, seed))
    mean = float(np.mean(by_repeat))
    low, high = interval(mean, float(np.std(np.mean(drawn, axis=0))))
    return {
        "auc": mean,
        "low": low,
        "high": high,
        "spread": float(np.std(by_repeat)),
        "pooled": float(np.mean(pooled)),
        "repeats": len(scores),
        "seconds": seconds,
    }


def redrawn(labels: np.ndarray, scores: np.ndarray, fold_of: np.ndarray, seed: int, samples: int = 1000) -> np.ndarray:
    """AUC averaged over folds, of ``samples`` samples of the galaxies drawn with replacement: (samples,).

    The same seed draws the same galaxies, whatever the scores.
    """
    ones, others = np.asarray(labels).astype(bool), ~np.asarray(labels).astype(bool)
    times = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), samples)
    found = []
    for number in range(FOLDS):
        first, second = (fold_of == number) & ones, (fold_of == number) & others
        difference = scores[first][:, None] - scores[second][None]
        wins = (difference > 0) + 0.5 * (difference == 0)
        weights = times[:, first].sum(axis=1) * times[:, second].sum(axis=1)
        found.append(((times[:, first] @ wins) * times[:, second]).sum(axis=1) / np.where(weights > 0, weights, np.nan))
    return np.nanmean(found, axis=0)


# ---- the methods


def plain(features: np.ndarray, strength: float) -> Method:
    """Logistic regression of a fixed strength."""
    return lambda galaxies, fold: Logistic.fit(features[fold.train], galaxies.labels[fold.train], strength).score(
        features[fold.test]
    )


def selected(features: np.ndarray) -> Method:
    """Logistic regression whose strength is chosen by five folds within the training rows."""

    def method(galaxies: Galaxies, fold: Fold) -> np.ndarray:
        rows, labels = features[fold.train], galaxies.labels[fold.train]
        inner = stratified_folds(labels, FOLDS, fold.seed)
        scores = np.empty((len(STRENGTHS), len(labels)))
        for number in range(FOLDS):
            learn, check = inner != number, inner == number
            for place, strength in enumerate(STRENGTHS):
                scores[place, check] = Logistic.fit(rows[learn], labels[learn], strength).score(rows[check])
        best = STRENGTHS[int(np.argmax([auc(labels, values) for values in scores]))]
        return Logistic.fit(rows, labels, best).score(features[fold.test])

    return method


def components(galaxies: Galaxies, fold: Fold) -> np.ndarray:
    """Logistic regression on principal components of the pixels."""
    return components_scores(galaxies.pixels[fold.train], galaxies.pixels[fold.test], galaxies.labels[fold.train])


def kernel(galaxies: Galaxies, fold: Fold) -> np.ndarray:
    """Kernel logistic regression on the polar features."""
    model = KernelLogistic.fit(galaxies.description[fold.train], galaxies.labels[fold.train])
    return model.score(galaxies.description[fold.test])


def from_scratch(epochs: int) -> Method:
    """The polar network from a random start."""

    def method(galaxies: Galaxies, fold: Fold) -> np.ndarray:
        torch.manual_seed(fold.seed)
        return trained(PolarNetwork(1, RADII), galaxies, fold, epochs, 5e-3, from_scratch=True)

    return method


def fine_tuned(pretrained: list[PolarNetwork], epochs: int) -> Method:
    """Polar networks from what they learned on simulations, averaged; their new heads start at zero."""

    def method(galaxies: Galaxies, fold: Fold) -> np.ndarray:
        scores = []
        for start in pretrained:
            network = PolarNetwork(1, RADII)
            network.layers.load_state_dict(start.layers.state_dict())
            network.project.load_state_dict(start.project.state_dict())
            torch.nn.init.zeros_(network.head.weight)
            torch.nn.init.zeros_(network.head.bias)
            scores.append(trained(network, galaxies, fold, epochs, 3e-4, from_scratch=False))
        return np.mean(scores, axis=0)

    return method


def trained(network: PolarNetwork, galaxies: Galaxies, fold: Fold, epochs: int, lr: float, from_scratch: bool) -> np.ndarray:
    labels = torch.from_numpy(galaxies.labels[fold.train]).float()
    train_on_labels(network, galaxies.light[fold.train], labels, epochs, lr, fold.seed, from_scratch)
    return mean_over_views(lambda light: network(light)[:, 0], galaxies.light[fold.test]).numpy()


def convnext_from_scratch(steps: int, size: int = 64) -> Method:
    """A small ConvNeXt V2 on the images themselves, as ``finetune_rings.py`` trains it; scores are means of eight views."""

    def method(galaxies: Galaxies, fold: Fold) -> np.ndarray:
        set_seed(fold.seed)
        model, normalisation = load_classifier(model_type="convnextv2", config_overrides=CONVNEXT, labels=CLASSES)
        train, test = (list(LabelledImages(galaxies.rows.select(rows), 2 * size)) for rows in (fold.train, fold.test))
        with tempfile.TemporaryDirectory() as folder:
            options = ImageTrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=32,
                learning_rate=1e-3,
                weight_decay=0.05,
                eval_views=8,
                warmup_steps=0.1,
                lr_scheduler_type="cosine",
                save_strategy="no",
                report_to="none",
                seed=fold.seed,
                logging_strategy="no",
                disable_tqdm=True,
            )
            views = Views(size, normalisation.mean, normalisation.std)
            trainer = ImageTrainer(model=model, args=options, views=views, train_dataset=train)
            trainer.train()
            logits = trainer.predict(test).predictions
        return logits[:, 1] - logits[:, 0]

    return method


# ---- the card


def card(args: Arguments, galaxies: Galaxies, found: dict, table: dict, spent: dict, held_out: dict | None = None) -> Card:
    """What came out, in the order in which it was measured."""
    best = max(table, key=lambda name: table[name]["auc"])
    lines = [
        "| method | AUC | 95 % interval | ± over repeats | pooled AUC | repeats of 5 folds | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        spread = f"{row['spread']:.3f}" if row["repeats"] > 1 else ""
        numbers = [f"{row['auc']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", spread, f"{row['pooled']:.3f}"]
        lines.append(f"| {name} | {' | '.join(numbers)} | {row['repeats']} | {row['seconds']:.0f} |")
    half = [(row["high"] - row["low"]) / 2 for row in table.values()]
    lines.append(f"""
The interval of a row is of its AUC: 95 %, the value and 1.96 standard deviations of it over 1,000 samples of the galaxies,
drawn with replacement, the scores fixed ({min(half):.3f} to {max(half):.3f} on either side). It says what other galaxies of
this kind would give with these models, not what models trained on others would. Rows share their galaxies, so that two of
them differ more surely than their intervals say. "± over repeats" is one standard deviation over the draws of the folds and
the networks' seeds alone.""")
    labels, scores = galaxies.labels, {name: values.mean(axis=0) for name, values in found.items()}
    probabilities = sigmoid(scores[COMBINED])
    split, metrics = f"{FOLDS}-fold cross-validation", binary_metrics(labels, probabilities)
    errors = bootstrap_errors(labels, probabilities)
    measured = Measured(
        "gz_decals",
        "rings_basic",
        split,
        revision_of(args.data_dir, "rings_basic"),
        metrics,
        len(labels),
        errors,
        remark="Each galaxy is scored by models that have not seen it; scores are averaged over the repeats, folds pooled.",
    )
    shown = [
        COMBINED,
        "polar features, logistic regression",
        "ConvNeXt V2 from scratch",
        "radial profiles, logistic regression",
    ]
    averaged = f" ({args.networks} of them, averaged)" if args.networks > 1 else ""
    text = f"""
Ringed galaxies among {len(labels)} images of Galaxy Zoo DECaLS, {labels.sum()} of them tagged as rings on the forum.
Every number comes from models that had not seen the galaxies they are measured on, and no setting was fitted to a test
fold. But the kinds of features and networks were arrived at by trying them on these same galaxies, so that all but the
first three numbers may be a little too good. No weights were downloaded.

The model measured is the mean of two log-odds: of a small convolutional network on polar grids, pretrained on simulated
galaxies and fine-tuned{averaged}, and of a logistic regression on its representations and on polar features. No weights are
kept: every fold has its own, from the last step of a training of fixed length; no validation chose one.
Everything took {spent["all"] / 60:.0f} minutes on {args.threads} thread(s), {spent["pretraining"] / 60:.0f} of them the
pretraining. The highest AUC in the table is {table[best]["auc"]:.3f} ({best}); it was not chosen to be the model
measured.

The labels are uncertain too: a galaxy that nobody tagged may have a ring. The same seed and number of threads give the same
rows to the last bit on the same kind of processor. With another number of threads sums are added up in another order, and
the rows of the polar network come out otherwise: by up to 0.007 in AUC in a shortened run.

Written by `training/rings_on_350.py` (seed {args.seed}, {args.pretraining_steps} steps of pretraining, {args.views} views a
galaxy, {args.epochs} epochs of fine-tuning).
"""
    tables = {"All methods": "\n".join(lines) + "\n"}
    if held_out is not None:
        tables["On other galaxies"] = held_out_text(held_out, table)
    return Card(
        "rings-gz-decals-350",
        text,
        measured,
        tables=tables,
        figures={
            "roc.png": (
                roc_figure(labels, {name: scores[name] for name in shown}),
                "Scores averaged over the repeats, all folds pooled.",
            ),
            "calibration.png": (calibration_figure(labels, {"this model": probabilities}), CALIBRATION),
        },
        citation=CITATION,
        library="skyset",
        licence=LICENCE,
        usage=(
            "No weights are published. A ranking by one of the methods above, polar features and logistic regression, takes "
            "seconds:",
            USAGE.format(data_dir=args.data_dir),
        ),
        galaxies=galaxies_text(galaxies.rows),
        versions=versions(),
    )


USAGE = """
import numpy as np
from skyset.explore import description as polar
from skyset.training.common.linear import Logistic
from skyset.training.common.rings import load_rings

splits = load_rings("{data_dir}")
known, others = splits["train"], splits["test"]
describe = lambda rows: np.array([polar.describe(image) for image in rows["image"]])
model = Logistic.fit(describe(known), np.array(known["label"]), 3e-3)
for name, ring in zip(others["object_id"], model.probability(describe(others))):
    print(f"{{name}} {{ring:.2f}}")
"""


def held_out_text(held_out: dict, table: dict) -> str:
    """What somebody found on galaxies that took no part in choosing the features."""
    model, profiles = held_out["model"], held_out["radial_profiles"]
    here = table["radial profiles, logistic regression"]["auc"]
    there, lead = model["auc"] - profiles["auc"], table[COMBINED]["auc"] - here
    sides = ["above" if difference >= 0 else "below" for difference in (lead, there)]
    return f"""{held_out["source"]}, on {held_out["galaxies"]} other real galaxies that took no part here: the model measured
has AUC {model["auc"]:.3f} ({model["low"]:.3f} to {model["high"]:.3f}), the plain radial profiles, by logistic regression,
{profiles["auc"]:.3f}. In the table above the model is {abs(lead):.3f} {sides[0]} the profiles, on those galaxies
{abs(there):.3f} {sides[1]}. This script has read these numbers, not measured them.
"""


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"rings_on_350: {error}", file=sys.stderr)
        sys.exit(2)
