import copy

import numpy as np
import pytest
import scipy.sparse
import torch
from engine_plans import make_data, make_network, make_orders, plan_network

from skdnn.components import (
    ELU,
    L2,
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    Adamax,
    AdamW,
    AMSGrad,
    BatchNorm,
    ClipNorm,
    MaxNorm,
    Momentum,
    NAdam,
    Nesterov,
    RMSProp,
    TorchOptimizer,
)
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy, MultilabelCrossentropy, SquaredError
from skdnn.engine import Trainer, Update, UpdatePlan, build_module, split_into_batches

RATE = 0.02

# The catalogue's defaults, as torch spells them.
ORACLES = {
    "sgd": (SGD(), lambda p: torch.optim.SGD(p, lr=RATE)),
    "momentum": (Momentum(0.8), lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.8)),
    "nesterov": (Nesterov(0.8), lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.8, nesterov=True)),
    "adagrad": (AdaGrad(), lambda p: torch.optim.Adagrad(p, lr=RATE)),
    "rmsprop": (RMSProp(), lambda p: torch.optim.RMSprop(p, lr=RATE, alpha=0.9)),
    "adam": (Adam(), lambda p: torch.optim.Adam(p, lr=RATE)),
    "adamw": (AdamW(), lambda p: torch.optim.AdamW(p, lr=RATE)),
    "nadam": (NAdam(), lambda p: torch.optim.NAdam(p, lr=RATE)),
    "adamax": (Adamax(), lambda p: torch.optim.Adamax(p, lr=RATE)),
    "amsgrad": (AMSGrad(), lambda p: torch.optim.Adam(p, lr=RATE, amsgrad=True)),
}


@pytest.fixture
def double_by_default():
    """torch.optim.NAdam keeps the product of its momenta in the default dtype, whatever that of the parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def rows_of_batches(order, batch_size, smallest):
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) < smallest:
        tail = batches.pop()
        batches[-1] = torch.cat([batches[-1], tail])
    return batches


def train_with_torch(network, X, y, orders, make_optimizer, criterion, batch_size, smallest=1, clip=None):
    """A plain loop over a copy of the network: its module after the last epoch, and each epoch's mean loss of the rows."""
    module = copy.deepcopy(build_module(network)).train()
    optimizer = make_optimizer(module.parameters())
    kernels = [parameter for parameter in module.parameters() if parameter.dim() == 2]
    losses = []
    for order in orders:
        total = 0.0
        for rows in rows_of_batches(order, batch_size, smallest):
            outputs = module(X[rows])
            is_binary = outputs.shape[1] == 1
            loss = criterion(outputs.squeeze(1), y[rows].to(X.dtype)) if is_binary else criterion(outputs, y[rows])
            total += loss.item() * len(rows)
            penalties = [
                layer.regularizer.l2 / 2 * kernel.square().sum()
                for layer, kernel in zip(network.plans[0].layers, kernels, strict=True)
                if layer.regularizer is not None
            ]
            optimizer.zero_grad()
            (loss + sum(penalties)).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            with torch.no_grad():
                for layer, kernel in zip(network.plans[0].layers, kernels, strict=True):
                    if layer.constraint is not None:
                        norm = kernel.norm(dim=1, keepdim=True)
                        kernel.mul_((layer.constraint.max_value / norm).clamp(max=1.0))
        losses.append(total / len(order))
    return module, losses


def train_with_engine(network, X, y, orders, optimizer, loss, batch_size, clipping=None):
    trainer = Trainer(network, Update(network, [UpdatePlan(optimizer, clipping)]), loss, batch_size)
    return [trainer.run_epoch(X, y, order, [RATE] * trainer.n_updates(len(order))) for order in orders]


def assert_same_training(network, losses, module, expected_losses):
    for tensor, expected in zip(network.parameters.network(0), module.parameters(), strict=True):
        torch.testing.assert_close(tensor, expected.detach(), rtol=1e-10, atol=1e-10)
    running = [buffer for name, buffer in module.named_buffers() if "running" in name]
    for tensor, expected in zip(network.statistics.network(0), running, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.cat(losses), torch.tensor(expected_losses, dtype=torch.float64), rtol=1e-10, atol=0.0)


def test_every_optimizer_has_an_oracle():
    assert ORACLES.keys() == OPTIMIZERS.keys()


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize("name", ORACLES)
def test_training_is_a_plain_torch_loop(name):
    optimizer, make_optimizer = ORACLES[name]
    network, (X, y) = make_network(plan_network()), make_data(37)
    orders = make_orders(2, n_rows=37)
    oracle = train_with_torch(network, X, y, orders, make_optimizer, torch.nn.CrossEntropyLoss(), 8)
    losses = train_with_engine(network, X, y, orders, optimizer, CategoricalCrossentropy(), 8)
    assert_same_training(network, losses, *oracle)


@pytest.mark.parametrize("is_binary", [False, True], ids=["multiclass", "binary"])
@pytest.mark.parametrize("batch_norm", [None, BatchNorm(output=True)], ids=["plain", "batch_norm"])
def test_all_techniques_together_are_a_plain_torch_loop(is_binary, batch_norm):
    loss = BinaryCrossentropy() if is_binary else CategoricalCrossentropy()
    plan = plan_network(
        sizes=(5, 7, 6, 1 if is_binary else 3),
        activation=ELU(),
        batch_norm=batch_norm,
        regularizer=L2(0.1),
        constraint=MaxNorm(0.7),
    )
    network, (X, y) = make_network(plan), make_data(33, n_classes=2 if is_binary else 3)
    orders = make_orders(2, n_rows=33)  # 4 batches of 8 and a row that batch norm sends to the last of them
    smallest = 1 if batch_norm is None else 2
    optimizer, make_optimizer = ORACLES["nesterov"]
    oracle = train_with_torch(network, X, y, orders, make_optimizer, loss.to_module(), 8, smallest, clip=0.5)
    losses = train_with_engine(network, X, y, orders, optimizer, loss, 8, ClipNorm(0.5))
    assert_same_training(network, losses, *oracle)


@pytest.mark.parametrize("make", [torch.optim.RAdam, torch.optim.Rprop])
def test_a_torch_optimizer_is_itself(make):
    network, (X, y) = make_network(plan_network()), make_data(20)
    orders = make_orders(2, n_rows=20)
    oracle = train_with_torch(network, X, y, orders, lambda p: make(p, lr=RATE), torch.nn.CrossEntropyLoss(), 8)
    losses = train_with_engine(network, X, y, orders, TorchOptimizer(make), CategoricalCrossentropy(), 8)
    assert_same_training(network, losses, *oracle)


@pytest.mark.parametrize("n_rows", [64, 66, 99, 131])
def test_epochs_of_more_batches_than_a_chunk_holds(n_rows):
    network, (X, y) = make_network(plan_network()), make_data(n_rows)
    orders = make_orders(2, n_rows=n_rows)
    _, make_optimizer = ORACLES["momentum"]
    oracle = train_with_torch(network, X, y, orders, make_optimizer, torch.nn.CrossEntropyLoss(), 2)
    losses = train_with_engine(network, X, y, orders, Momentum(0.8), CategoricalCrossentropy(), 2)
    assert_same_training(network, losses, *oracle)


def test_how_an_epoch_is_cut_into_chunks_does_not_show(monkeypatch):
    X, y = make_data(50)
    orders = make_orders(2, n_rows=50)
    results = []
    for limit in (32, 3, 1):
        monkeypatch.setattr("skdnn.engine.chunks._CHUNK_BATCHES", limit)
        network = make_network(plan_network(batch_norm=BatchNorm()))
        train_with_engine(network, X, y, orders, Momentum(), CategoricalCrossentropy(), 4)
        results.append(network.parameters.data)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_wide_rows_make_smaller_chunks(monkeypatch):
    monkeypatch.setattr("skdnn.engine.chunks._CHUNK_ELEMENTS", 1)
    network, (X, y) = make_network(plan_network()), make_data(20)
    orders = make_orders(1, n_rows=20)
    oracle = train_with_torch(network, X, y, orders, ORACLES["sgd"][1], torch.nn.CrossEntropyLoss(), 8)
    losses = train_with_engine(network, X, y, orders, SGD(), CategoricalCrossentropy(), 8)
    assert_same_training(network, losses, *oracle)


def test_epochs_of_one_trainer_may_have_other_rows_each():
    network, (X, y) = make_network(plan_network()), make_data(40)
    orders = [order[:n] for order, n in zip(make_orders(4, n_rows=40), (9, 40, 20, 40), strict=True)]
    oracle = train_with_torch(network, X, y, orders, ORACLES["momentum"][1], torch.nn.CrossEntropyLoss(), 4)
    losses = train_with_engine(network, X, y, orders, Momentum(0.8), CategoricalCrossentropy(), 4)
    assert_same_training(network, losses, *oracle)


def test_training_leaves_data_order_and_global_generator_alone():
    plan = plan_network(dropout=0.5, input_dropout=0.5, batch_norm=BatchNorm())
    network, (X, y) = make_network(plan), make_data()
    (order,) = make_orders(1, n_rows=len(X))
    before = X.clone(), y.clone(), order.clone(), torch.get_rng_state()
    train_with_engine(network, X, y, [order], Adam(), CategoricalCrossentropy(), 8)
    assert all(torch.equal(a, b) for a, b in zip((X, y, order, torch.get_rng_state()), before, strict=True))


def test_each_update_has_its_own_rate():
    network, (X, y) = make_network(plan_network()), make_data(20)
    (order,) = make_orders(1, n_rows=20)
    rates = [0.1, 0.0, 0.3]
    module = copy.deepcopy(build_module(network))
    for rows, rate in zip(order.split(8), rates, strict=True):
        optimizer = torch.optim.SGD(module.parameters(), lr=rate)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
        optimizer.step()
    trainer = Trainer(network, Update(network, [UpdatePlan(SGD())]), CategoricalCrossentropy(), 8)
    assert trainer.n_updates(20) == 3
    trainer.run_epoch(X, y, order, rates)
    for tensor, expected in zip(network.parameters.network(0), module.parameters(), strict=True):
        torch.testing.assert_close(tensor, expected.detach(), rtol=1e-12, atol=1e-12)


def test_one_network_takes_an_order_with_its_axis_too():
    X, y = make_data(20)
    (order,) = make_orders(1, n_rows=20)
    results = []
    for given in (order, order.unsqueeze(0)):
        network = make_network(plan_network())
        trainer = Trainer(network, Update(network, [UpdatePlan(SGD())]), CategoricalCrossentropy(), 8)
        trainer.run_epoch(X, y, given, [RATE] * 3)
        results.append(network.parameters.data)
    assert torch.equal(*results)


class Watcher:
    def __init__(self, network):
        self._network = network
        self.events = []

    def batch_begins(self, x, y):
        self.events.append(("begin", x.clone(), y.clone(), self._network.parameters.data.clone()))

    def gradient_is_ready(self, x, y):
        self.events.append(("gradient", x.clone(), y.clone(), self._network.gradient.clone()))

    def batch_ends(self, x, y, outputs, loss):
        self.events.append(("end", x.clone(), y.clone(), outputs.clone(), loss.clone()))


def test_a_watcher_sees_every_batch_and_changes_nothing():
    X, y = make_data(70)
    (order,) = make_orders(1, n_rows=70)
    plan = plan_network(dropout=0.3)
    quiet, network = make_network(plan), make_network(plan)
    watcher = Watcher(network)
    losses = []
    for own, watch in ((quiet, None), (network, watcher)):
        trainer = Trainer(own, Update(own, [UpdatePlan(SGD())]), CategoricalCrossentropy(), 2)
        losses.append(trainer.run_epoch(X, y, order, [RATE] * 35, watcher=watch))
    assert torch.equal(quiet.parameters.data, network.parameters.data)
    assert torch.equal(*losses)
    assert [event[0] for event in watcher.events] == ["begin", "gradient", "end"] * 35
    for i, rows in enumerate(order.split(2)):
        (_, *before, start), (_, *during, gradient), (_, *after, outputs, loss) = watcher.events[3 * i : 3 * i + 3]
        assert all(torch.equal(x, X[rows]) and torch.equal(labels, y[rows]) for x, labels in (before, during, after))
        torch.testing.assert_close(loss.squeeze(), torch.nn.functional.cross_entropy(outputs, y[rows]))
        following = watcher.events[3 * i + 3][3] if i < 34 else network.parameters.data
        torch.testing.assert_close(following, start - RATE * gradient)


# rows that count differently ----------------------------------------------------------------------------------------------

# The loss, torch's loss of each output of each row, the network's outputs, and targets.
WEIGHTED = {
    "categorical": (
        CategoricalCrossentropy(),
        lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="none").unsqueeze(1),
        3,
        lambda generator, n: torch.randint(3, (n,), generator=generator),
    ),
    "binary": (
        BinaryCrossentropy(),
        lambda z, y: torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.to(z), reduction="none").unsqueeze(1),
        1,
        lambda generator, n: torch.randint(2, (n,), generator=generator),
    ),
    "multilabel": (
        MultilabelCrossentropy(),
        lambda z, y: torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none"),
        3,
        lambda generator, n: torch.randint(2, (n, 3), generator=generator).double(),
    ),
    "squared_error": (
        SquaredError(),
        lambda z, y: (z - y).square() / 4,  # the mean over two targets, of a half
        2,
        lambda generator, n: torch.randn(n, 2, generator=generator, dtype=torch.float64),
    ),
}


def draw_weights(n_rows, n_columns=1, seed=5):
    return torch.rand(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3.0 + 0.01


def train_weighted_with_torch(network, X, y, orders, make_optimizer, losses_of, batch_size, smallest, sample_weight, weights):
    """A plain loop: of each batch sum(w * l) / sum(w), where a row's l is the weighted sum of its outputs' losses.

    With batch norm the weights must be counts: the rows are repeated.
    """
    module = copy.deepcopy(build_module(network)).train()
    optimizer = make_optimizer(module.parameters())
    is_repeated = network.plans[0].uses_batch_norm
    results = []
    for order in orders:
        total = 0.0
        for rows in rows_of_batches(order, batch_size, smallest):
            if is_repeated:
                rows = rows.repeat_interleave(sample_weight[rows, 0].long())
            counts = torch.ones(len(rows), 1, dtype=torch.float64) if is_repeated else sample_weight[rows]
            factors = 1.0 if weights is None else weights[rows]
            weighted = (counts * factors * losses_of(module(X[rows]), y[rows])).sum()
            optimizer.zero_grad()
            (weighted / counts.sum()).backward()
            optimizer.step()
            total += weighted.item()
        results.append(total / sample_weight[order].sum().item())
    return module, results


def train_weighted_with_engine(network, X, y, orders, optimizer, loss, batch_size, sample_weight, weights=None, **named):
    trainer = Trainer(network, Update(network, [UpdatePlan(optimizer)]), loss, batch_size)
    return [
        trainer.run_epoch(
            X, y, order, [RATE] * trainer.n_updates(order.shape[-1]), weights, sample_weight=sample_weight, **named
        )
        for order in orders
    ]


@pytest.mark.parametrize("factors", [None, "row", "output"])
@pytest.mark.parametrize("norm", [None, BatchNorm(momentum=0.7), BatchNorm(output=True)], ids=["plain", "norm", "all_norm"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_batches_are_weighted_means(name, norm, factors):
    loss, losses_of, n_outputs, draw_targets = WEIGHTED[name]
    if factors == "output" and loss.out_activation == "softmax":
        factors = "row"  # a softmax has one loss a row
    network, (X, _) = make_network(plan_network((5, 7, 6, n_outputs), batch_norm=norm)), make_data(33)
    y = draw_targets(torch.Generator().manual_seed(2), 33)
    orders = make_orders(2, n_rows=33)  # a tail of one row, which joins where there is batch norm
    sample_weight = (
        draw_weights(33) if norm is None else torch.randint(1, 5, (33, 1), generator=torch.Generator().manual_seed(4)).double()
    )
    weights = None if factors is None else draw_weights(33, n_outputs if factors == "output" else 1, seed=6)
    make_optimizer, smallest = ORACLES["momentum"][1], 1 if norm is None else 2
    oracle = train_weighted_with_torch(network, X, y, orders, make_optimizer, losses_of, 8, smallest, sample_weight, weights)
    losses = train_weighted_with_engine(network, X, y, orders, Momentum(0.8), loss, 8, sample_weight, weights)
    assert_same_training(network, losses, *oracle)


@pytest.mark.parametrize("norm", [None, BatchNorm()], ids=["plain", "batch_norm"])
@pytest.mark.parametrize("limit", [1, 3, 32])
def test_weighted_epochs_of_several_chunks(monkeypatch, norm, limit):
    monkeypatch.setattr("skdnn.engine.chunks._CHUNK_BATCHES", limit)
    network, (X, y) = make_network(plan_network(batch_norm=norm)), make_data(47)
    orders = make_orders(2, n_rows=47)
    sample_weight = torch.randint(1, 5, (47, 1), generator=torch.Generator().manual_seed(0)).double()
    losses_of, make_optimizer = WEIGHTED["categorical"][1], ORACLES["sgd"][1]
    oracle = train_weighted_with_torch(network, X, y, orders, make_optimizer, losses_of, 4, 1, sample_weight, None)
    losses = train_weighted_with_engine(network, X, y, orders, SGD(), CategoricalCrossentropy(), 4, sample_weight)
    assert_same_training(network, losses, *oracle)


def test_rows_outside_of_the_order_have_no_part_in_it():
    X, y = make_data(40)
    (order,) = make_orders(1, n_rows=40)
    states, losses = [], []
    for outside in (0.0, torch.nan):
        sample_weight = draw_weights(40)
        sample_weight[order[20:]] = outside
        network = make_network(plan_network(batch_norm=BatchNorm()))
        losses += train_weighted_with_engine(network, X, y, [order[:20]], Adam(), CategoricalCrossentropy(), 8, sample_weight)
        states.append(network.parameters.data)
    assert torch.equal(*states)
    assert torch.equal(*losses)


def test_weighted_and_unweighted_epochs_of_one_trainer():
    X, y = make_data(20)
    order, sample_weight = torch.arange(20), draw_weights(20)
    network, kept = (make_network(plan_network(batch_norm=BatchNorm(), dropout=0.3)) for _ in range(2))
    trainer = Trainer(network, Update(network, [UpdatePlan(SGD())]), CategoricalCrossentropy(), 8)
    for weight in (None, sample_weight, None, sample_weight):
        trainer.run_epoch(X, y, order, [RATE] * 3, sample_weight=weight)
    for n_epochs, weight in enumerate((None, sample_weight, None, sample_weight)):
        fresh = Trainer(kept, Update(kept, [UpdatePlan(SGD())]), CategoricalCrossentropy(), 8, n_epochs=n_epochs)
        fresh.run_epoch(X, y, order, [RATE] * 3, sample_weight=weight)
    assert torch.equal(network.parameters.data, kept.parameters.data)
    assert torch.equal(network.statistics.data, kept.statistics.data)


def test_a_watcher_is_told_the_weighted_loss():
    X, y = make_data(20)
    order, sample_weight = torch.arange(20), draw_weights(20)
    network = make_network(plan_network())
    trainer = Trainer(network, Update(network, [UpdatePlan(SGD())]), CategoricalCrossentropy(), 8)
    watcher = Watcher(network)
    reported = trainer.run_epoch(X, y, order, [RATE] * 3, watcher=watcher, sample_weight=sample_weight)
    ends = watcher.events[2::3]
    total = 0.0
    for rows, (_, _, labels, outputs, loss) in zip(order.split(8), ends, strict=True):
        weight = sample_weight[rows, 0]
        expected = (weight * torch.nn.functional.cross_entropy(outputs, labels, reduction="none")).sum()
        torch.testing.assert_close(loss.squeeze(), expected / weight.sum())
        total += expected
    torch.testing.assert_close(reported.squeeze(), total / sample_weight.sum())


# equal rows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, BatchNorm()], ids=["plain", "batch_norm"])
def test_twins_share_their_masks_so_that_counts_are_repeated_rows(norm):
    X, y = make_data(12)
    counts = torch.tensor([3, 1, 2, 1, 1, 4, 1, 2, 1, 1, 5, 1])
    rows = torch.arange(12).repeat_interleave(counts)
    plan = plan_network(dropout=0.4, input_dropout=0.2, batch_norm=norm)
    weighted, repeated = make_network(plan), make_network(plan)
    orders = make_orders(3, n_rows=12)
    losses = train_weighted_with_engine(
        weighted, X, y, orders, Momentum(), CategoricalCrossentropy(), 100, counts.double().view(-1, 1), twins=torch.arange(12)
    )
    others = make_orders(3, n_rows=len(rows), seed=9)  # a twin is known by its number, wherever it stands
    expected = train_weighted_with_engine(
        repeated, X[rows], y[rows], others, Momentum(), CategoricalCrossentropy(), 100, None, twins=rows
    )
    torch.testing.assert_close(weighted.parameters.data, repeated.parameters.data, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(weighted.statistics.data, repeated.statistics.data, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(losses, expected, rtol=1e-11, atol=0.0)


def test_rows_that_are_no_twins_have_masks_of_their_own():
    ones, y = torch.ones(6, 400, dtype=torch.float64), torch.zeros(6, dtype=torch.int64)
    network = make_network(plan_network((400, 3), input_dropout=0.5))
    seen = []

    class Spy(Watcher):
        def gradient_is_ready(self, x, y):
            seen.append(network.layers[0]._outputs[6].clone())

    trainer = Trainer(network, Update(network, [UpdatePlan(SGD())]), CategoricalCrossentropy(), 6)
    for twins in (torch.tensor([0, 1, 1, 2, 0, 1]), None):
        trainer.run_epoch(ones, y, torch.tensor([5, 4, 3, 2, 1, 0]), [RATE], watcher=Spy(network), twins=twins)
    shared, own = seen
    assert torch.equal(shared[0], shared[3])
    assert torch.equal(shared[0], shared[4])
    assert torch.equal(shared[1], shared[5])
    assert len(shared.unique(dim=0)) == 3
    assert len(own.unique(dim=0)) == 6
    for masked in (shared, own):
        assert set(masked.unique().tolist()) == {0.0, 2.0}
        assert abs((masked == 0.0).double().mean() - 0.5) < 0.1


# sparse rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("limit", [1, 3, 32])
def test_sparse_rows_are_dense_rows_bit_for_bit(monkeypatch, form, limit, dtype):
    monkeypatch.setattr("skdnn.engine.chunks._CHUNK_BATCHES", limit)
    X, y = make_data(45, dtype=dtype)
    X[X.abs() < 0.7] = 0.0
    X[7] = 0.0
    plan = plan_network(dropout=0.2, input_dropout=0.1, batch_norm=BatchNorm())
    results = []
    for rows in (X, form(X.numpy())):
        network = make_network(plan, dtype=dtype)
        sample_weight = draw_weights(45).to(dtype)
        losses = train_weighted_with_engine(
            network, rows, y, make_orders(2, n_rows=45), Adam(), CategoricalCrossentropy(), 4, sample_weight
        )
        results.append((network.parameters.data, network.statistics.data, torch.cat(losses), network.predict(rows)))
    assert all(torch.equal(dense, sparse) for dense, sparse in zip(*results, strict=True))


def test_no_more_than_a_chunk_of_sparse_rows_is_dense(monkeypatch):
    X, y = make_data(400)
    sizes, convert = [], scipy.sparse.csr_array.toarray

    def toarray(self, *args, **named):
        sizes.append(self.shape[0])
        return convert(self, *args, **named)

    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", toarray)
    monkeypatch.setattr("skdnn.engine.chunks._CHUNK_ELEMENTS", 5 * 16)
    network = make_network(plan_network())
    rows = scipy.sparse.csr_array(X.numpy())
    train_weighted_with_engine(network, rows, y, make_orders(1, n_rows=400), SGD(), CategoricalCrossentropy(), 4, None)
    assert (max(sizes), sum(sizes)) == (16, 400)
    sizes.clear()
    monkeypatch.setattr("skdnn.engine.network._BLOCK_ELEMENTS", 13 * 30)  # the widest layer has 7 inputs and 6 outputs
    chosen = torch.arange(0, 400, 2)
    outputs = network.predict(rows, chosen)
    assert (max(sizes), sum(sizes)) == (30, 200)
    monkeypatch.undo()
    assert np.allclose(outputs, network.predict(X)[chosen], rtol=1e-12)


CUTS = [
    (100, 32, 1, [(3, 32), (1, 4)]),
    (96, 32, 1, [(3, 32)]),
    (97, 32, 1, [(3, 32), (1, 1)]),
    (97, 32, 2, [(2, 32), (1, 33)]),
    (98, 32, 2, [(3, 32), (1, 2)]),
    (33, 32, 2, [(1, 33)]),
    (20, 32, 2, [(1, 20)]),
    (1, 32, 2, [(1, 1)]),
    (5, 1, 1, [(5, 1)]),
    (0, 32, 1, []),
]


@pytest.mark.parametrize(("n_rows", "batch_size", "smallest", "expected"), CUTS)
def test_split_into_batches(n_rows, batch_size, smallest, expected):
    runs = split_into_batches(n_rows, batch_size, smallest)
    assert list(runs) == expected
    assert sum(n_batches * size for n_batches, size in runs) == n_rows
