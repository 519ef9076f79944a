"""The same training with several seeds: each in a folder of its own, and a card of their mean and spread."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from huggingface_hub import ModelCard, ModelCardData

from skyset.errors import UserError
from skyset.files import file_sha256, write_atomically
from skyset.training.common.runs import CARD, read_record
from skyset.training.common.training_arguments import TaskArguments

logger = logging.getLogger("skyset.training")

#: In the output folder: figures by seed, and the digest of the card.
RECORD = "seeds.json"
Figures = Mapping[str, float]


def over_seeds(main: Callable[[list[str]], Figures], arguments: Sequence[str] | None, args: TaskArguments) -> Figures:
    """Run a script once a seed, from ``--seed`` up, into ``OUT/seed_K``, and write ``OUT/README.md``.

    A seed whose run is finished is not trained again, one that was killed goes on.

    Args:
        main: the script, with arguments; returns the figures of the test split.
        arguments: the command's words.
        args: parsed from them.

    Returns:
        Mean figures.

    Raises:
        UserError: what the script raises, or a card that this has not written would be replaced.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    folder, cards = Path(args.output_dir), Path(args.card_dir or args.output_dir)
    _refuse_others(folder, cards / CARD, args.overwrite_output_dir)
    found: dict[int, Figures] = {}
    for number in range(args.seed, args.seed + args.seeds):
        logger.info("seed %d", number)
        place = f"seed_{number}"
        own = ["--seeds", "1", "--seed", str(number), "--output_dir", str(folder / place)]
        found[number] = main([*words, *own, *(["--card_dir", str(cards / place)] if args.card_dir else [])])
    if args.should_save:
        write_atomically(cards / CARD, card_of(found, folder, cards))
        record = {"figures": found, "card": file_sha256(cards / CARD)}
        write_atomically(folder / RECORD, json.dumps(record, indent=1))
    return {name: float(np.mean([figures[name] for figures in found.values()])) for name in _names(found)}


def _refuse_others(folder: Path, card: Path, overwrite: bool) -> None:
    try:
        known = json.loads((folder / RECORD).read_text())["card"]
    except (OSError, ValueError, LookupError, TypeError):
        known = None
    if card.exists() and not overwrite and file_sha256(card) != known:
        raise UserError(
            f"{card} was not written by this run, and its card would replace it: give another folder, or "
            "--overwrite_output_dir"
        )


def _names(found: Mapping[int, Figures]) -> list[str]:
    """Figures that every seed has."""
    return [name for name in next(iter(found.values())) if all(name in figures for figures in found.values())]


def card_of(found: Mapping[int, Figures], folder: Path, cards: Path) -> str:
    """Markdown: mean and spread of each figure, what was trained, and where the single models are.

    Args:
        found: figures by seed.
        folder: of the runs, ``seed_K`` each.
        cards: of their cards, likewise.
    """
    first = next(iter(found))
    how = ((read_record(folder / f"seed_{first}") or {}).get("about") or {}).get("how", "")
    one = ModelCard.load(cards / f"seed_{first}" / CARD)
    names = {result.metric_type: result.metric_name for result in one.data.eval_results or []}
    title = f"{one.data.model_name or folder.name}, {len(found)} seeds"
    lines = [
        f"The same training with the seeds {', '.join(map(str, found))}. The first, and the others but for the seed:\n",
        f"{how}\n",
    ]
    if _names(found):
        lines += [
            "| | mean | standard deviation | " + " | ".join(f"seed {seed}" for seed in found) + " |",
            "|---|---|---|" + "---|" * len(found),
        ]
        for name in _names(found):
            values = [figures[name] for figures in found.values()]
            cells = " | ".join(f"{value:.4g}" for value in (np.mean(values), np.std(values, ddof=1), *values))
            lines.append(f"| {names.get(name, name)} | {cells} |")
        lines.append(
            "\nThe standard deviation is that of trainings with other seeds on the same galaxies; what other galaxies would "
            "give is in the card of each model."
        )
    else:
        lines.append("Trained on all galaxies: no number can be given.")
    models = ", ".join(f"[seed_{seed}](seed_{seed}/{CARD})" for seed in found)
    text = f"# {title}\n\n" + "\n".join(lines) + f"\n\nModels, each with its own card: {models}.\n"
    return f"---\n{_metadata(one.data, title, found).to_yaml()}\n---\n\n{text}"


def _metadata(one: ModelCardData, title: str, found: Mapping[int, Figures]) -> ModelCardData:
    """Of the card of one seed, with mean figures."""
    for result in one.eval_results or []:
        values = [figures[result.metric_type] for figures in found.values() if result.metric_type in figures]
        if values:
            result.metric_value = round(float(np.mean(values)), 6)
    one.model_name = title
    return one
