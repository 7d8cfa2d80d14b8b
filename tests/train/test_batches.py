"""An epoch's batches come from the seed, the epoch and the images, and from nothing else."""

import small
import torch

from resnet_fused.train import batches, data


def _epoch(read, epoch=1, seed=0, mixup=0.0, workers=0):
    pairs = list(batches.training(read, 16, seed, epoch, mixup, batches.Loading(workers)))
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def test_an_order_is_a_permutation_of_its_own():
    orders = {(seed, epoch): batches.order(100, seed, epoch) for seed in (0, 1) for epoch in (1, 2)}
    assert all(sorted(order) == list(range(100)) for order in orders.values())
    assert len(set(map(tuple, orders.values()))) == 4
    assert orders[1, 2] == batches.order(100, 1, 2)


def test_batches_do_not_depend_on_what_was_drawn_before_nor_on_workers(digits_folder):
    read = data.load(small.settings(digits_folder))  # whose augmentation draws for every image
    torch.manual_seed(0)
    x, y = _epoch(read, epoch=3)
    torch.manual_seed(1)
    torch.rand(5)
    before = torch.get_rng_state()
    again, _ = _epoch(read, epoch=3)
    assert torch.equal(x, again) and torch.equal(torch.get_rng_state(), before)
    by_workers, labels = _epoch(read, epoch=3, workers=2)
    assert torch.equal(x, by_workers) and torch.equal(y, labels)


def test_an_image_is_augmented_anew_in_every_epoch(digits_folder):
    read = data.load(small.settings(digits_folder))
    found = []
    for epoch, seed in ((1, 0), (2, 0), (1, 1)):
        x, _ = _epoch(read, epoch, seed)
        found.append(x[batches.order(64, seed, epoch).index(7)])
    assert all(not torch.equal(a, b) for a, b in ((found[0], found[1]), (found[0], found[2]), (found[1], found[2])))


def test_steps_are_of_one_size_and_tests_leave_nothing_out():
    _, read = small.digits(train=50, test=20)
    assert [len(x) for x, _ in batches.training(read, 16, 0, 1, 0)] == [16, 16, 16]
    labels = torch.cat([y for _, y in batches.testing(read)])
    assert labels.tolist() == [read.test[i][1] for i in range(20)]


def test_mixup_is_a_blend_with_the_batchs_neighbour():
    """x' = λx + (1-λ)·roll(x), and labels likewise. Zhang et al. 2018 (mixup), section 2; λ is found from labels.

    Within 1e-5: two roundings of values of at most 4, and λ from labels of float32.
    """
    _, read = small.digits(train=32)
    plain, labels = _epoch(read)
    torch.manual_seed(5)
    mixed, soft = _epoch(read, mixup=0.4)
    hot = torch.nn.functional.one_hot(labels, 10).float()
    strengths = []
    for part in (slice(0, 16), slice(16, 32)):
        x, y = plain[part], hot[part]
        neighbour, other = x.roll(1, 0), y.roll(1, 0)
        differ = (labels[part] != labels[part].roll(1)).nonzero()[0].item()
        strength = soft[part][differ, labels[part][differ]]
        assert (soft[part] - (strength * y + (1 - strength) * other)).abs().max() < 1e-5
        assert (mixed[part] - (strength * x + (1 - strength) * neighbour)).abs().max() < 1e-5
        strengths.append(strength.item())
    assert 0 < strengths[0] < 1 and strengths[0] != strengths[1]
