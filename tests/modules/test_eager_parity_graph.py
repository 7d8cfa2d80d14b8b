"""The autograd graph: what may be edited, run twice, recomputed, differentiated twice, traced or shared by threads."""

import copy
import threading

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from eager_pairs import BLOCKS, KINDS, assert_same, batch_norms, buffers, compare, image, outcome, pair, step
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

EDITED = "one of the variables needed for gradient computation has been modified by an inplace operation"


def gradients(module):
    return [p.grad for p in module.parameters()]


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("edited", ("x", "conv1.weight", "conv2.weight", "bn1.weight", "bn2.weight"))
def test_edited_in_place_before_backward(kind, edited, training):
    def action(module):
        x = image(kind).requires_grad_() * 1
        y = module.train(training)(x)
        with torch.no_grad():
            (x if edited == "x" else module.get_parameter(edited)).mul_(2)
        y.sum().backward()
        return gradients(module)

    eager, fused = pair(kind)
    expected, result = outcome(action, eager), outcome(action, fused)
    assert expected[0] is result[0] is RuntimeError
    # What follows names the tensor's shape and the operation that made it, in eager the module's inner ones.
    assert expected[1].startswith(EDITED) and result[1].startswith(EDITED)


@pytest.mark.parametrize("kind", BLOCKS)
def test_output_edited_in_place_before_backward(kind):
    def action(module):
        y = module(image(kind).requires_grad_())
        loss = y.sum()
        y.mul_(2)
        loss.backward()

    eager, fused = pair(kind)
    expected, result = outcome(action, eager), outcome(action, fused)
    assert expected[0] is result[0] is RuntimeError
    assert expected[1].startswith(EDITED) and result[1].startswith(EDITED)


@pytest.mark.parametrize("kind", BLOCKS)
def test_running_statistics_edited_before_backward(kind):
    """Eager refuses, having saved them; ours does not read them in backward, so its gradients stay right."""

    def action(module, edit):
        y = module(image(kind))
        for bn in batch_norms(module) if edit else ():
            bn.reset_running_stats()
        y.sum().backward()
        return gradients(module)

    eager, fused = pair(kind)
    assert outcome(lambda module: action(module, True), eager)[1].startswith(EDITED)
    assert_same(action(fused, True), action(pair(kind)[0], False))


@pytest.mark.parametrize("kind", KINDS)
def test_backward_twice(kind):
    def action(module):
        loss = module(image(kind)).sum()
        loss.backward()
        loss.backward()

    eager, fused = pair(kind)
    expected = outcome(action, eager)
    assert expected[1].startswith("Trying to backward through the graph a second time")
    assert outcome(action, fused) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_backward_twice_with_retained_graph(kind):
    def action(module):
        loss = module(image(kind)).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        return gradients(module)

    compare(action, pair(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_called_twice_before_backward(kind):
    def action(module):
        loss = sum(module(image(kind, seed=seed)).square().sum() for seed in (1, 2))
        loss.backward()
        return gradients(module)

    compare(action, pair(kind))


def test_called_on_its_own_output():
    def action(module):
        module(module(image())).square().sum().backward()
        return gradients(module)

    compare(action, pair("basic"))


@pytest.mark.parametrize("reentrant", (False, True))
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_advances_the_counter_by_two(kind, reentrant):
    def action(module):
        x = image(kind).requires_grad_()
        checkpoint(module, x, use_reentrant=reentrant).square().sum().backward()
        assert batch_norms(module)[0].num_batches_tracked == 2
        return x.grad, gradients(module)

    compare(action, pair(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", (torch.no_grad, torch.inference_mode))
@pytest.mark.parametrize("training", (True, False))
def test_without_gradients(kind, context, training):
    def action(module):
        with context():
            y = module.train(training)(image(kind))
        assert not y.requires_grad and y.is_inference() == (context is torch.inference_mode)
        return y

    compare(action, pair(kind))


def test_checkpoint_of_a_block_that_runs_eager():
    def action(module):
        x = image().requires_grad_()
        module.conv1.register_forward_hook(lambda *_: None)
        checkpoint(module, x, use_reentrant=False).square().sum().backward()
        return x.grad, gradients(module)

    modules = pair("basic")
    compare(action, modules, runs=None)
    assert modules[1].bn2.num_batches_tracked == 2


def test_checkpoint_of_several_blocks():
    def action(module):
        x = image().requires_grad_()
        checkpoint(lambda x: module(module(x)), x, use_reentrant=False).square().sum().backward()
        return x.grad, gradients(module)

    modules = pair("basic")
    compare(action, modules)
    assert modules[1].bn2.num_batches_tracked == 4


def untracked(modules):
    for module in modules:
        for bn in batch_norms(module):
            bn.track_running_stats = False
            bn.running_mean = bn.running_var = bn.num_batches_tracked = None
    return modules


def small(kind):
    return image(kind, batch=2, size=9 if kind == "stem" else 3)


def test_vmap_over_tracked_training_batch_norm():
    x = torch.stack([image(seed=seed) for seed in range(2)])
    error = compare(lambda module: torch.vmap(module)(x), pair("basic"), runs=None, raises=RuntimeError)
    assert error[1].startswith("Batch norm got a batched tensor as input")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ("untracked", "eval"))
def test_vmap(kind, mode):
    modules = pair(kind)
    modules = untracked(modules) if mode == "untracked" else [m.eval() for m in modules]
    x = torch.stack([image(kind, seed=seed) for seed in range(3)])
    compare(lambda module: torch.vmap(module)(x).detach(), modules)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ("untracked", "eval"))
def test_func_grad(kind, mode):
    """torch.func.grad over parameters, and per-sample gradients by vmap of it."""
    modules = pair(kind)
    modules = untracked(modules) if mode == "untracked" else [m.eval() for m in modules]
    x = image(kind)

    def action(module):
        parameters = dict(module.named_parameters())

        def loss(values, x):
            return functional_call(module, values, (x,)).square().sum()

        per_sample = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x.unsqueeze(1))
        return torch.func.grad(loss)(parameters, x), {k: v.detach() for k, v in per_sample.items()}

    compare(action, modules)


def test_func_grad_over_tracked_training_batch_norm():
    """Whatever eager does: it updates its buffers under grad, so ours does."""
    x = image()

    def action(module):
        parameters = dict(module.named_parameters())
        return torch.func.grad(lambda values: functional_call(module, values, (x,)).square().sum())(parameters)

    modules = pair("basic")
    expected = outcome(action, modules[0])
    result = outcome(action, modules[1])
    assert_same(result, expected)
    assert_same(buffers(modules[1]), buffers(modules[0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", (True, False))
def test_gradient_of_gradient(kind, training):
    """A gradient penalty: d/dparameters of |d loss/dx|²."""

    def action(module):
        x = small(kind).requires_grad_()
        y = module.train(training)(x)
        (dx,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        dx.square().sum().backward()
        return dx.detach(), x.grad, gradients(module)

    compare(action, pair(kind))


@pytest.mark.parametrize("kind", ("basic", "bottleneck_projection"))
@pytest.mark.parametrize("training", (True, False))
def test_hessian(kind, training):
    x = image(kind, batch=1, size=2 if kind == "basic" else 3)

    def action(module):
        module.train(training)
        return torch.autograd.functional.hessian(lambda x: module(x).pow(3).sum(), x)

    compare(action, pair(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", (True, False))
def test_forward_mode(kind, training):
    x, tangent = small(kind), image(kind, batch=2, size=9 if kind == "stem" else 3, seed=5)

    def action(module):
        with forward_ad.dual_level():
            y = module.train(training)(forward_ad.make_dual(x, tangent))
            return tuple(t.detach().clone() for t in forward_ad.unpack_dual(y))

    compare(action, untracked(pair(kind)) if training else pair(kind))


@pytest.mark.parametrize("kind", ("basic", "bottleneck_projection"))
@pytest.mark.parametrize("mode", ("untracked", "eval"))
def test_func_jvp_and_hessian(kind, mode):
    modules = pair(kind)
    modules = untracked(modules) if mode == "untracked" else [m.eval() for m in modules]
    x = image(kind, batch=1, size=3)

    def action(module):
        loss = lambda x: module(x).pow(3).sum()  # noqa: E731
        _, tangent = torch.func.jvp(lambda x: module(x), (x,), (x.cos(),))
        return tangent.detach(), torch.func.jacrev(torch.func.grad(loss))(x).detach()

    compare(action, modules)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", (True, False))
def test_export(kind, training):
    """torch.export (not strict) gives a program of the same numbers."""
    eager, fused = (module.train(training) for module in pair(kind))
    x = image(kind)
    program = torch.export.export(copy.deepcopy(fused), (x,), strict=False)
    assert_same(program.module()(x).detach(), eager(x).detach())


@pytest.mark.slow  # autograd/test_compile.py compiles some every day
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", (True, False))
def test_compile_full_graph(kind, training):
    def action(module):
        torch._dynamo.reset()
        return step(torch.compile(module.train(training), backend="aot_eager", fullgraph=True), image(kind))

    eager, fused = pair(kind)
    ours, theirs = action(fused), step(eager.train(training), image(kind))
    for name in ("y", "dx", "dp"):
        assert_same(ours[name], theirs[name])
    assert_same(buffers(fused), buffers(eager))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_in_eval(kind):
    eager, fused = (module.eval() for module in pair(kind))
    inputs = [image(kind, seed=seed) for seed in range(8)]
    with torch.no_grad():
        expected = [eager(x) for x in inputs]
    results = [None] * 8

    def work(i):
        with torch.no_grad():
            for _ in range(5):
                results[i] = fused(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(results, expected)


def test_backward_in_other_threads():
    """Eight graphs of one module, walked by eight threads at once."""
    _, fused = pair("bottleneck_projection")
    inputs = [image("bottleneck_projection", seed=seed).requires_grad_() for seed in range(8)]
    losses = [fused.eval()(x).square().sum() for x in inputs]
    expected = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss, x in zip(losses, inputs)]
    results = [None] * 8

    def work(i):
        results[i] = torch.autograd.grad(losses[i], inputs[i])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(results, expected))
