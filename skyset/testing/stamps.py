"""The word that simulated images bear, so that nobody takes them for real ones."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def stamp(image: np.ndarray) -> np.ndarray:
    """The image, (H, W, 3) uint8, with the word "simulated" at its bottom: nobody takes it for a real one."""
    written = Image.fromarray(image)
    height, width = image.shape[:2]
    place, font = (width // 2, height - 6), ImageFont.load_default(max(9, height // 26))
    ImageDraw.Draw(written).text(place, "simulated", (150, 150, 150), font, anchor="mb")
    return np.asarray(written)


def is_stamped(image: np.ndarray) -> bool:
    """Whether an image, (H, W, 3) uint8, bears the word that ``stamp`` writes: its grey is that of no sky and no galaxy."""
    edge = image[-max(14, image.shape[0] // 15) :]
    return int((edge == 150).all(axis=2).sum()) >= 40
