"""Photographs that come with installed packages, as a data set: from which of eight photographs is this piece of one?

Each photograph is cut into square tiles, TILES of them along its shorter side. A fifth of the tiles are for testing; a
piece is cut from within a tile, so that no pixel that is tested was ever trained on.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from resnet_fused.bench import photographs

TILES = 10
TESTED = 5  # one tile of so many, by the knight's move: none is beside another


class Tiles(NamedTuple):
    """uint8 tiles [3, side, side], of each photograph its own side; labels: numbers of NAMES."""

    images: list[torch.Tensor]
    labels: list[int]


def load() -> tuple[Tiles, Tiles]:
    """The tiles to train with and those to test; always the same. Raises MissingPackage."""
    train, test = Tiles([], []), Tiles([], [])
    for label, photograph in enumerate(photographs.load("training on images:demo", extra="train")):
        side = min(photograph.shape[1:]) // TILES
        for i, row in enumerate(photograph.split(side, 1)):
            for j, tile in enumerate(row.split(side, 2)):
                if tile.shape[1:] == (side, side):  # what is left over at the edges is not
                    part = test if (i + 2 * j) % TESTED == 0 else train
                    part.images.append(tile)
                    part.labels.append(label)
    return train, test
