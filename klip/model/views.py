"""What a network sees of an image: its views, and plain ones that stay in memory for the next.

Axes: K views, S pixels a side.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from klip.data.images import picture
from klip.model import augment, kept
from klip.model.augment import Preprocess

ENOUGH = 1.5
"""A JPEG is decoded at the smallest fraction of its sides that has so many times the pixels of
a view's: what is left to shrink still averages over them.  Of GroceryStore's 2,485 test
photographs at 96 pixels (half their sides) 26.28 % are right by NanoCLIP, 26.32 % decoded
whole, 98.0 % with the same answer; at 1.0, where packshots are halved too, 25.63 %."""
MOST = 256 * 2**20
"""Bytes of plain views that stay in memory: those of 9,700 images at 96 pixels."""


class Recent:
    """Arrays that were asked for last, up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes, self.lock = most, 0, Lock()
        self.arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, made if it is not there.  Do not write."""
        with self.lock:
            if key in self.arrays:
                self.arrays.move_to_end(key)
                return self.arrays[key]
        made = make()  # unlocked: readers make theirs side by side
        with self.lock:
            if key not in self.arrays:
                self.arrays[key], self.bytes = made, self.bytes + made.nbytes
            while self.bytes > self.most:
                self.bytes -= self.arrays.popitem(last=False)[1].nbytes
        return made


_plain = Recent(MOST)


class Views(Dataset):
    """Item: the `views` views of an image, float32 (K, 3, S, S).

    images: files, of which large JPEGs are decoded in part (ENOUGH), or uint8 (H, W, 3).
    again: plain views of files stay in memory, for another network will ask for them.
    """

    def __init__(
        self,
        images: Sequence,
        preprocess: Preprocess,
        *,
        views: int = 1,
        seed: int = 0,
        again: bool = False,
    ) -> None:
        self.images, self.preprocess, self.views, self.seed = images, preprocess, views, seed
        self.again = again

    def __getitem__(self, place: int) -> Tensor:
        image, seen = self.images[place], self.preprocess

        def shown() -> np.ndarray:
            """What all views are made of, an array or a picture."""
            return (
                image
                if isinstance(image, np.ndarray)
                else picture(image, round(ENOUGH * seen.size))
            )

        if self.views > 1 or isinstance(image, np.ndarray) or not self.again:
            made = augment.views(shown(), seen, k=self.views, seed=self.seed)
            return torch.from_numpy(made)
        key = kept.told(image), seen.size, seen.resize, seen.interpolation, seen.fill
        plain = _plain.get(key, lambda: augment.plain(shown(), seen))
        return torch.from_numpy(augment.normalised(plain, seen)[None])
