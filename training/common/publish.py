"""A trained model on the Hub: weights, configuration, card and figures in one commit, nothing pickled."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers import TrainingArguments

from skyset.errors import UserError
from skyset.training.common.runs import CARD, MODEL, RECORD, Run, read_record


def pushed(run: Run, repository: str, args: TrainingArguments) -> str:
    """Push what a run made; returns the commit's address.

    Args:
        run: finished, its card written.
        repository: ``USER/NAME``.
        args: with token, revision and whether the repository is private.

    Raises:
        UserError: the Hub does not take it.
    """
    card = (read_record(run.folder) or {}).get("card", {CARD: ""})
    files = [path for path in sorted(run.folder.iterdir()) if MODEL.fullmatch(path.name) or path.name == RECORD]
    files += [run.card_folder / name for name in card]
    with TemporaryDirectory() as folder:
        for path in files:
            (Path(folder) / path.name).symlink_to(path.resolve())
        try:
            commit = HfApi(token=args.hub_token).upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message=f"{run.settings.get('script', 'skyset')}: model and card",
                revision=args.hub_revision,
            )
        except (HfHubHTTPError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{repository} was not pushed: {first}; the model is whole in {run.folder}") from error
    return str(commit)
