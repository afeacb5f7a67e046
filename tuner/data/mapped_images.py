"""Map the decoded images of a part into memory."""

import errno
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def map_images(file: Path) -> Tensor:
    """Memory-map the images without reading them, copy-on-write: writing to the tensor does not change the file.

    Linux refuses a private map that is larger than the machine's memory. The map is then read-only, and torch's warning
    about this is suppressed.
    """
    try:
        return torch.from_numpy(np.load(file, mmap_mode="c"))
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.load(file, mmap_mode="r"))
