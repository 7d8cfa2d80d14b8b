"""An epoch's batches, which depend on the seed, the epoch and the images alone.

Whatever was drawn before, however many workers load: image i of epoch e is augmented by a generator of its own. So a
run that is resumed, and its unfused twin, see the same numbers.
"""

from __future__ import annotations

import hashlib
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from resnet_fused.bench.requirements import require
from resnet_fused.train import data
from resnet_fused.train.processes import ALONE, Processes
from resnet_fused.train.settings import TrainError

TEST_BATCH = 256  # images in a batch of evaluation; without gradients memory suffices


def derived(*parts: object) -> int:
    """A seed of 63 bits from parts such as seed, epoch and image; other parts, another stream."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch's images."""
    generator = torch.Generator().manual_seed(derived("order", seed, epoch))
    return torch.randperm(count, generator=generator).tolist()


class Transformed(Dataset):
    """A data set behind a transform; an image that cannot be read becomes a sentence (str) in its place.

    A sentence, and not an exception, because a worker process hands on exceptions as tracebacks in words.
    """

    def __init__(self, images: Dataset, transform: Callable[[Any], Tensor], seeds: tuple[object, ...] | None) -> None:
        self.images, self.transform, self.seeds = images, transform, seeds

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | str:
        try:
            image, label = self.images[index]
        except Exception as error:  # PIL's readers raise whatever a damaged file leads them to
            return f"{data.describe(self.images, index)} cannot be read: {' '.join(str(error).split())}"
        if self.seeds is None:
            return self.transform(image), label
        generator = torch.default_generator  # which torchvision's transforms draw from
        before = generator.get_state()
        try:
            generator.manual_seed(derived("augment", *self.seeds, index))
            return self.transform(image), label
        finally:
            generator.set_state(before)


def collate(samples: list[Any]) -> Any:
    """A batch; the first sentence, if there is one."""
    return next((sample for sample in samples if isinstance(sample, str)), None) or default_collate(samples)


class Loading(NamedTuple):
    """How images are brought in, which changes none: worker processes, and memory that a GPU can read itself."""

    workers: int = 0
    pinned: bool = False


def training(
    images: data.Data, batch: int, seed: int, epoch: int, mixup: float, how: Loading = Loading(),
    ranks: Processes = ALONE,
) -> Iterator[Any]:  # fmt: skip
    """The batches of an epoch: float32 [batch, 3, S, S] and labels [batch]; with `mixup` probabilities [batch, C].

    All batches are of the same size, so that every step does the same work: what is left over waits for another epoch,
    which has another order. Of several processes each gets a portion of every batch. mixup: α of Beta(α, α), drawn from
    torch's own generator; images of one portion are mixed. Raises TrainError for an image that cannot be read.
    """
    view = Transformed(images.train, images.augment, (seed, epoch))
    drawn = order(len(view), seed, epoch)
    whole = [drawn[start : start + batch] for start in range(0, len(drawn) - batch + 1, batch)]
    loaded = _load(view, how, [*map(ranks.portion, whole)])
    if not mixup:
        return loaded
    transforms = require("torchvision.transforms.v2", "torchvision", "mixup", extra="train")
    mix = transforms.MixUp(alpha=mixup, num_classes=len(images.classes))
    return (mix(*pair) for pair in loaded)


def testing(
    images: data.Data, how: Loading = Loading(), ranks: Processes = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """The test images in their order, none left out, a portion of every batch for each process; raises as training().

    All processes have equally many batches, none of them empty, if there are as many images as processes: a sharded
    network must be called equally often in each.
    """
    view = Transformed(images.test, images.prepare, None)
    starts = range(0, max(1, len(view) - ranks.size + 1), TEST_BATCH)  # too few for a batch join the one before
    ends = [*starts[1:], len(view)]
    return _load(view, how, [ranks.portion(range(start, end)) for start, end in zip(starts, ends)])


def _load(view: Transformed, how: Loading, indices: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    # A generator of its own: a loader draws a seed for its workers, and would take it from torch's.
    loader = DataLoader(view, num_workers=how.workers, collate_fn=collate, pin_memory=how.pinned, batch_sampler=indices,
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
    for batch in loader:
        if isinstance(batch, str):
            raise TrainError(batch)
        yield batch
