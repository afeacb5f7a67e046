"""scikit-learn's handwritten digits: 1,797 real 8x8 images that need no download."""

import numpy as np

from tuner.data.arrays import ArrayPart, source_from_arrays
from tuner.data.dataset import DataSpec, DecodableSource, ListedSource, Report
from tuner.data.known_sets import DIGITS
from tuner.data.splits import TEST_FRACTION, TEST_SEED, choose_stratified, part_size


def list_digits(spec: DataSpec) -> ListedSource:
    """List the digits, which are part of scikit-learn and never change."""

    def read(_: Report | None) -> DecodableSource:
        from sklearn.datasets import load_digits

        digits = load_digits()
        # The scanner counted 0 to 16 dark pixels in each 4x4 field.
        images_NCHW = np.rint(digits.images[:, np.newaxis] * (255 / 16)).astype(np.uint8)
        labels_N = digits.target.astype(np.int64)
        class_names = tuple(str(name) for name in digits.target_names)
        total = part_size(len(labels_N), TEST_FRACTION)
        test_N = choose_stratified(labels_N, class_names, total=total, seed=TEST_SEED)
        rest_N = np.setdiff1d(np.arange(len(labels_N)), test_N)
        note = (
            f"digits has no test set of its own: {total:,} of its {len(labels_N):,} images "
            f"({TEST_FRACTION * 100:.0f} %, stratified, seed fixed) are set aside as the sealed test set"
        )
        return source_from_arrays(
            DIGITS,
            class_names,
            development=ArrayPart(images_NCHW[rest_N], labels_N[rest_N], (note,)),
            test=ArrayPart(images_NCHW[test_N], labels_N[test_N], (note,)),
            decoding=spec.decoding,
        )

    return ListedSource(listing=(DIGITS,), read=read)
