"""What is told of a photometric redshift's model, for its card."""

from __future__ import annotations

from dataclasses import dataclass

from skyset.training.common.photoz_points import POINTS
from skyset.training.common.story import Story

TASK = "tabular-regression"
UNMEASURED = "\nTrained on all galaxies: no number can be given. See the card of the model trained on `train`.\n"
#: Of what is learned from GalaxiesML.
LICENCE = (
    "other",
    "Redshifts, photometry and images of GalaxiesML: Zenodo record 11117528; images of HSC-SSP\n"
    "(https://hsc-release.mtk.nao.ac.jp/doc/), which asks to be acknowledged. For weights that a training started from,\n"
    "their own licence.",
)
SAYS = {
    "point": "It says one redshift, trained with the loss `{loss}`",
    "mixture": "It says p(z), a mixture of {components} normal distributions of log(1 + z), trained by likelihood",
    "bins": "It says p(z) in {bins} bins of log(1 + z), trained by cross-entropy",
    "bayes": "It says p(z), with a variational Bayesian last layer (Harrison, Willes & Snoek 2024, arXiv:2404.11599), "
    "trained by the evidence bound in closed form",
}
USAGE = """
from skyset.training.common.models import load_trained
from skyset.training.common.photoz_data import load_galaxies
from skyset.training.common.photoz_trainer import predict

model, _ = load_trained("{model}", "photoz")
sees = model.config.sees_images, model.config.sees_photometry
galaxies = load_galaxies("{data_dir}", "{config}", *sees)["test"]
redshifts, pdf = predict(model, galaxies, range(4))
print(galaxies.object_id[:4], redshifts, "true:", galaxies.z[:4].numpy())
"""


@dataclass(kw_only=True)
class PhotozStory(Story):
    """What is known of a model when its card is written.

    Args:
        data_dir, config: where the galaxies are.
        turns: of images, see `FluxViews`.
        others: of `Story`.
    """

    data_dir: str
    config: str
    turns: str = "quarter"

    @property
    def name(self) -> str:
        return f"photoz-{self.model.config.trunk}-{self.model.config.pdf}-galaxiesml-{self.config}"

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        config, inputs = self.model.config, list[str]()
        if config.sees_images:
            inputs.append(f"{config.image_size} x {config.image_size} pixel images in {', '.join(config.bands)}")
        if config.sees_photometry:
            inputs.append("magnitudes" + ("" if config.trunk in ("nn", "hybrid") else " and their errors"))
        says = SAYS[config.pdf].format(loss=config.point_loss, components=config.components, bins=config.bins)
        about = f"**{self.args.data_note}**\n\n" if self.args.data_note else ""
        if config.pdf != "point":
            says += f"; its redshift is {POINTS[config.point]}"
        return f"{about}Redshifts of galaxies from {' and '.join(inputs)}. {says}.\n\n{self.size()} {self.made()}"

    def size(self) -> str:
        million = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        return f"`{self.model.config.trunk}`, {million:.2f} million parameters."

    def training(self, how_often: str = "") -> str:
        return super().training(how_often).rstrip()

    def views(self) -> str:
        turned = {
            "quarter": "turned by quarters and mirrored",
            "any": "turned by any angle and mirrored",
            "none": "not turned",
        }
        return f"Images are {turned[self.turns]}." if self.model.config.sees_images else ""

    def usage(self) -> tuple[str, str]:
        return "For four galaxies:", USAGE.format(model=self.folder, data_dir=self.data_dir, config=self.config)
