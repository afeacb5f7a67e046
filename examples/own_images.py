"""Search on an image folder, and predict the class of a new image: `python examples/own_images.py [TRIALS]`.

The images are discs and squares, drawn into the folder `shapes`, which has one folder for each class.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

import tuner

SIDE = 24
IMAGES_PER_CLASS = 60


def draw_shape(kind: str, generator: random.Random) -> Image.Image:
    """A grey image of a disc or a square, with a random size, place and brightness."""
    image = Image.new("L", (SIDE, SIDE), color=generator.randrange(60))
    size = generator.randrange(8, 16)
    left, top = generator.randrange(SIDE - size), generator.randrange(SIDE - size)
    box, brightness = (left, top, left + size, top + size), generator.randrange(140, 256)
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse(box, fill=brightness)
    else:
        draw.rectangle(box, fill=brightness)
    return image


def write_images(folder: Path, *, seed: int = 0) -> None:
    """Write the images of both classes, each class into a folder of its name."""
    generator = random.Random(seed)
    for kind in ("disc", "square"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES_PER_CLASS):
            draw_shape(kind, generator).save(folder / kind / f"{number}.png")


if __name__ == "__main__":
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    write_images(Path("shapes"))
    summary = tuner.run(tuner.RunOptions(dataset="shapes", trials=trials))
    draw_shape("disc", random.Random(1)).save("new.png")
    (prediction,) = tuner.predict(tuner.load_checkpoint(summary.delivered), [Path("new.png")])
    name, probability = prediction.probabilities[0]
    print(f"new.png is a {name} with a probability of {probability:.2%}")
