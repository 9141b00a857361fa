"""The prints of a gallery's products, prepared when a product is first voted for, then kept.

Axes: P packshots.
"""

from functools import lru_cache

import numpy as np

from klip.recognise import keypoints

KEPT = 1000
"""Products whose prints are kept, those asked for last: of one packshot each 100 MB."""


class Printed:
    """Prints by the number of their product."""

    def __init__(self, owners: np.ndarray, descriptors: list[np.ndarray]) -> None:
        """owners (P,) the number of each packshot's product, descriptors as of `keypoints.sift`."""
        self.owners, self.descriptors = owners, descriptors
        self._packshots = np.argsort(owners, kind="stable")
        self._rising = owners[self._packshots]
        self.of = lru_cache(maxsize=KEPT)(self._of)

    def are_of(self, owners: np.ndarray, descriptors: list[np.ndarray]) -> bool:
        """Were they made of these packshots?"""
        return self.descriptors is descriptors and np.array_equal(self.owners, owners)

    def _of(self, product: int) -> keypoints.Print:
        """All packshots of a product as one print."""
        first, behind = np.searchsorted(self._rising, [product, product + 1])
        own = [self.descriptors[packshot] for packshot in self._packshots[first:behind].tolist()]
        return keypoints.prepared(np.concatenate(own))
