"""An ensemble of mixture density networks as one model: members, folds, noise, and what is saved."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModel

from skyset.errors import UserError
from skyset.training.common.mixtures import Mixture
from skyset.training.common.photoz_table import PhotozTable, PhotozTableConfig, member_loss


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny networks are faster so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMALL = {"bands": ["g", "r", "i"], "width": 8, "depth": 2, "components": 3, "members": 4, "folds": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PhotozTable(PhotozTableConfig(**SMALL))


@pytest.fixture
def rows():
    magnitudes = torch.tensor([[24.0, 23, 22], [25, torch.inf, 23], [torch.nan, 22, torch.nan]])
    return magnitudes, torch.full((3, 3), 0.1)


def test_members_differ_and_noise_is_of_training_alone(model, rows):
    first, again = (model.eval()(*rows).logits for _ in range(2))
    assert first.shape == (3, 4, 3, 3) and torch.equal(first, again) and first.isfinite().all()
    assert not torch.allclose(first[:, 0], first[:, 1])
    first, again = (model.train()(*rows).logits for _ in range(2))
    assert not torch.equal(first, again) and first.isfinite().all()
    assert model.eval()(rows[0]).logits.isfinite().all()  # without errors


def test_each_member_is_a_network_of_its_own(model, rows):
    before = model.eval()(*rows).logits.detach()
    with torch.no_grad():
        for layer in (model.first, *model.blocks, model.head):
            layer.weight[2] += 0.1
    after = model(*rows).logits
    same = [torch.equal(before[:, member], after[:, member]) for member in range(4)]
    assert same == [True, True, False, True]


def test_members_leave_out_their_fold_and_new_rows_have_none(model, rows):
    use = model.learns_from(torch.tensor([0, 1, -1]))
    assert use.tolist() == [[False, True, False, True], [True, False, True, False], [True] * 4]
    components, z = model.eval()(*rows).logits, torch.tensor([0.5, 1.0, 0.2])
    each = Mixture(components).log_prob(z)
    loss = member_loss(components, z, use)
    assert loss[0].item() == pytest.approx(-each[0, [1, 3]].mean().item())
    loss[:1].sum().backward()
    gradient = model.head.weight.grad.abs().sum((1, 2))
    assert (gradient[[1, 3]] > 0).all() and (gradient[[0, 2]] == 0).all()
    without = PhotozTable(PhotozTableConfig(**SMALL | {"folds": 0}))
    assert without.learns_from(torch.tensor([-1, -1])).all()


def test_saved_and_loaded_it_says_the_same(model, rows, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, PhotozTable) and again.config.bands == ["g", "r", "i"]
    assert torch.equal(again.eval()(*rows).logits, model.eval()(*rows).logits)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"members": 3}, "3 members cannot share 2 folds"),
        ({"width": 0}, "width must be 1 or more"),
        ({"noise": -1}, "must not be negative"),
        ({"scaling": {"softening": [1.0]}}, "no softening of 3 numbers for the bands g, r, i"),
    ],
)
def test_settings_that_make_no_model_are_one_line(settings, match):
    with pytest.raises(UserError, match=match):
        PhotozTableConfig(**SMALL | settings)


def test_other_bands_are_refused(model):
    with pytest.raises(UserError, match="2 magnitudes a row, but the model takes g, r, i"):
        model(torch.zeros(4, 2))


def test_what_members_learn_is_the_likelihood_of_a_known_mixture():
    """On two colours whose redshift is known but for a fifth of the galaxies, which are elsewhere."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = PhotozTable(PhotozTableConfig(**SMALL | {"width": 16, "centre": 0.5, "spread": 0.2, "noise": 0}))
    colour = rng.uniform(-1, 1, 2000)
    z = np.expm1(np.where(rng.random(2000) < 0.8, 0.5 + 0.1 * colour, 0.2) + rng.normal(0, 0.02, 2000))
    magnitudes = torch.tensor(np.column_stack([colour, 0 * colour, 0 * colour]), dtype=torch.float32) + 25
    model.config.scaling |= {"softening": [1e-3] * 3, "mean": [25.0, 25, 25, 0, 0]}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    everyone = torch.ones(200, 4, dtype=torch.bool)
    for step in range(120):
        part = slice(200 * (step % 10), 200 * (step % 10) + 200)
        loss = member_loss(model(magnitudes[part]).logits, torch.tensor(z[part]), everyone).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cdf = Mixture(model.eval()(torch.tensor([[25.0, 25, 25]])).logits.detach()).cdf(np.expm1([0.35, 0.65]))
    assert cdf[0] == pytest.approx([0.2, 1.0], abs=0.06)
