"""A network that expects the votes of volunteers: Dirichlet concentrations of all answers of a tree of questions.

The votes of N volunteers on a question are taken as a draw from a multinomial whose shares are themselves a draw from a
Dirichlet distribution, which the network gives by its concentrations (Walmsley et al. 2020, MNRAS 491, 1554; 2022, MNRAS
509, 3966). The loss is the negative logarithm of the probability of the votes, with the multinomial's coefficient, summed
over the questions of a galaxy and averaged over galaxies, as Zoobot has it; a question without votes adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from skyset.questions import Question, Tree
from skyset.training.common.encoders import EncoderConfig, EncoderModel

#: Concentrations lie between 1 and this much more, as Zoobot's do: between nobody knows and 100 volunteers' certainty.
STRONGEST = 100.0


class VoteConfig(EncoderConfig):
    """Of a `VoteModel`.

    Args:
        tree: questions as dicts (name, text, answers, depends_on); the head has their answers in this order.
        campaign: whose votes it learned from.
        others: of `EncoderConfig`.
    """

    model_type = "skyset_votes"

    def __init__(self, tree: Sequence[Mapping] = (), campaign: str = "", **others):
        self.tree, self.campaign = [dict(question) for question in tree], campaign
        super().__init__(**others)

    @property
    def questions(self) -> Tree:
        """The tree of questions."""
        return tuple(
            Question(q["name"], q["text"], tuple(q["answers"]), tuple(q["depends_on"])) for q in self.tree
        )  # lists, in JSON


class VoteModel(EncoderModel):
    """An encoder with one number an answer; ``concentrations`` makes Dirichlet concentrations of them."""

    config_class = VoteConfig

    @staticmethod
    def head_of(config: VoteConfig) -> nn.Module:
        return nn.Linear(config.width, sum(len(question["answers"]) for question in config.tree))

    @staticmethod
    def concentrations(logits: Tensor) -> Tensor:
        """Of the answers, from 1 to 101, float32 (rows, answers)."""
        return concentrations(logits)

    @torch.inference_mode()
    def answers(self, pixel_values: Tensor) -> list[dict[str, float]]:
        """The share of volunteers that is expected to give each answer of those who are asked, by ``<question>_<answer>``.

        Args:
            pixel_values: normalised images (batch, channels, size, size), see `Views`.
        """
        strengths = self.concentrations(self(pixel_values).logits)
        shares = strengths / per_answer(per_question(strengths, self.config.questions), self.config.questions)
        stems = [stem for question in self.config.questions for stem in question.stems]
        return [dict(zip(stems, row, strict=True)) for row in shares.tolist()]

    def start_at(self, strengths: Tensor) -> None:
        """Let the untrained head answer these concentrations (answers,) whatever the image; training goes on from there."""
        share = ((strengths - 1) / STRONGEST).clamp(1e-3, 1 - 1e-3)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(torch.logit(share))


AutoConfig.register(VoteConfig.model_type, VoteConfig)
AutoModel.register(VoteConfig, VoteModel)


def as_dicts(tree: Tree) -> list[dict]:
    """The tree as plain values, for a configuration."""
    return [{**asdict(q), "answers": list(q.answers), "depends_on": list(q.depends_on)} for q in tree]


def concentrations(logits: Tensor) -> Tensor:
    """1 to 101 from what the head says, float32."""
    return 1 + STRONGEST * torch.sigmoid(logits.float())


def per_question(values: Tensor, tree: Tree) -> Tensor:
    """Sums over the answers of each question: (rows, answers) to (rows, questions)."""
    return torch.stack([part.sum(dim=-1) for part in values.split([len(q.answers) for q in tree], dim=-1)], dim=-1)


def per_answer(values: Tensor, tree: Tree) -> Tensor:
    """Of each question, once for each of its answers: (rows, questions) to (rows, answers)."""
    return values.repeat_interleave(torch.tensor([len(q.answers) for q in tree], device=values.device), dim=-1)


def votes_loss(counts: Tensor, strengths: Tensor, tree: Tree) -> Tensor:
    """Negative log-probability of the votes, (rows, questions), 0 where nobody answered.

    Args:
        counts: votes for each answer, (rows, answers); whole numbers or, for shares of assumed volunteers, not.
        strengths: Dirichlet concentrations, (rows, answers).
        tree: the questions.
    """
    voters, total = per_question(counts, tree), per_question(strengths, tree)
    answers = torch.lgamma(1 + counts) + torch.lgamma(strengths) - torch.lgamma(counts + strengths)
    return per_question(answers, tree) - (torch.lgamma(1 + voters) + torch.lgamma(total) - torch.lgamma(voters + total))


def row_loss(tree: Tree):
    """For `ImageTrainer`: the loss of each galaxy, summed over the questions."""

    def loss(outputs: SimpleNamespace, labels: Tensor) -> Tensor:
        return votes_loss(labels.float(), concentrations(outputs.logits), tree).sum(dim=-1)

    return loss
