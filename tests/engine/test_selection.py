"""Some networks of a population leave it, or are put into it: what is theirs goes with them, and nothing else does."""

import pytest
import torch
from engine_plans import CPU, make_data, make_network, make_orders, plan_network
from test_lockstep import DTYPES, EVERYTHING, POPULATIONS, RATES, SEEDS, state_of

from skdnn.components import ELU, SGD, BatchNorm, ClipNorm, ClipValue, Momentum
from skdnn.components.losses import CategoricalCrossentropy
from skdnn.engine import Trainer, Update, UpdatePlan
from skdnn.engine.storage import FlatStorage

SHAPES = [(3, 2), (3,), (1, 3), (1,)]
SUBSETS = [[0], [2], [0, 2], [2, 0], [0, 1, 2]]


def make_storage(n_networks, start=0):
    storage = FlatStorage(SHAPES, n_networks, torch.float64, CPU)
    storage.data.copy_(torch.arange(start, start + len(storage.data)))
    return storage


# storage ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indices", SUBSETS, ids=str)
def test_a_selection_is_laid_out_as_a_storage_of_its_own(indices):
    storage = make_storage(3)
    before = storage.data.clone()
    chosen = FlatStorage(SHAPES, len(indices), torch.float64, CPU)
    chosen.data.copy_(storage.select(indices))
    for k, index in enumerate(indices):
        for tensor, expected in zip(chosen.network(k), storage.network(index), strict=True):
            assert torch.equal(tensor, expected)
    storage.select(indices).fill_(-1.0)  # a copy
    assert torch.equal(storage.data, before)


@pytest.mark.parametrize("indices", SUBSETS, ids=str)
def test_a_selection_of_another_flat_tensor(indices):
    storage, other = make_storage(3), make_storage(3, start=100)
    assert torch.equal(storage.select(indices, other.data), other.select(indices))


def test_a_selection_of_the_only_network():
    storage = make_storage(1)
    chosen = storage.select([0])
    assert torch.equal(chosen, storage.data)
    assert chosen.data_ptr() != storage.data.data_ptr()


@pytest.mark.parametrize("k", range(3))
def test_assign_writes_one_network_and_no_other(k):
    storage, source, before = make_storage(3), make_storage(1, start=100), make_storage(3)
    storage.assign(k, source.data)
    for index in range(3):
        expected = source.network(0) if index == k else before.network(index)
        for tensor, values in zip(storage.network(index), expected, strict=True):
            assert torch.equal(tensor, values)


def test_assign_copies():
    storage, source = make_storage(1), make_storage(1, start=100)
    storage.assign(0, source.data)
    source.data.fill_(-1.0)
    assert torch.equal(storage.data, make_storage(1, start=100).data)


@pytest.mark.parametrize("k", range(3))
def test_assign_is_the_way_back_from_select(k):
    storage = make_storage(3)
    part = storage.select([k])
    storage.assign(k, torch.zeros_like(part))
    assert not torch.equal(storage.data, make_storage(3).data)
    storage.assign(k, part)
    assert torch.equal(storage.data, make_storage(3).data)


def test_storage_of_nothing_can_be_selected_and_assigned():
    storage = FlatStorage([], 3, torch.float32, CPU)
    assert storage.select([0, 2]).shape == (0,)
    storage.assign(1, torch.zeros(0))


# network ------------------------------------------------------------------------------------------------------------------


def make_population(norm=None, dtype=torch.float64):
    """Networks that differ in every number, with statistics away from where they start."""
    plans = [plan_network(activation=ELU(), batch_norm=norm, **techniques) for techniques in EVERYTHING[:3]]
    network = make_network(*plans, dtype=dtype, seeds=SEEDS)
    generator = torch.Generator().manual_seed(0)
    network.statistics.data.add_(torch.rand(network.statistics.data.shape, generator=generator))
    return network


norms = pytest.mark.parametrize("norm", [None, BatchNorm()], ids=["plain", "batch_norm"])


@norms
@pytest.mark.parametrize("indices", SUBSETS, ids=str)
def test_selected_networks_have_their_plans_parameters_and_statistics(indices, norm):
    network = make_population(norm)
    chosen = network.select(indices)
    assert chosen.plans == tuple(network.plans[k] for k in indices)
    assert (chosen.n_networks, chosen.dtype, chosen.device) == (len(indices), network.dtype, network.device)
    for k, index in enumerate(indices):
        assert torch.equal(state_of(chosen, k), state_of(network, index))
    X, _ = make_data()
    expected = network.predict(X)[indices]
    torch.testing.assert_close(chosen.predict(X).view(expected.shape), expected, rtol=1e-12, atol=1e-12)


def test_selected_networks_have_memory_of_their_own():
    network = make_population(BatchNorm())
    before = network.snapshot()
    chosen = network.select([1])
    chosen.parameters.data.fill_(7.0)
    chosen.statistics.data.fill_(7.0)
    chosen.gradient.fill_(7.0)
    assert torch.equal(network.parameters.data, before[0])
    assert torch.equal(network.statistics.data, before[1])
    assert not network.gradient.eq(7.0).any()


@norms
def test_assign_puts_a_network_to_a_snapshot_of_one(norm):
    network = make_population(norm)
    before = [state_of(network, k) for k in range(3)]
    alone = make_network(network.plans[1], seeds=[99])
    alone.statistics.data.add_(3.0)
    network.assign(1, alone.snapshot())
    assert torch.equal(state_of(network, 1), state_of(alone, 0))
    assert torch.equal(state_of(network, 0), before[0])
    assert torch.equal(state_of(network, 2), before[2])


@norms
@pytest.mark.parametrize("indices", SUBSETS, ids=str)
def test_a_snapshot_of_some_networks_is_one_of_a_network_of_these(indices, norm):
    network = make_population(norm)
    snapshot, chosen = network.snapshot(indices), network.select(indices)
    for part, expected in zip(snapshot, chosen.snapshot(), strict=True):
        assert torch.equal(part, expected)
    network.parameters.data.add_(1.0)
    network.statistics.data.add_(1.0)
    chosen.restore(snapshot)  # which has not moved with the network
    fresh = make_population(norm)
    for k, index in enumerate(indices):
        assert torch.equal(state_of(chosen, k), state_of(fresh, index))


def test_snapshots_are_of_all_networks_by_default():
    network = make_population(BatchNorm())
    for part, expected in zip(network.snapshot(), network.snapshot([0, 1, 2]), strict=True):
        assert torch.equal(part, expected)


# updates ------------------------------------------------------------------------------------------------------------------


def run(network, update, X, y, orders, rates):
    trainer = Trainer(network, update, CategoricalCrossentropy(), 8)
    rate = rates[0] if network.n_networks == 1 else tuple(rates)
    return [trainer.run_epoch(X, y, order, [rate] * trainer.n_updates(order.shape[-1])) for order in orders]


def of(order, indices):
    """The orders of some networks, where each has its own."""
    if order.dim() == 1:
        return order
    return order[indices[0]] if len(indices) == 1 else order[indices]


def assert_stayers_end_where_separate_fits_end(plans, updates, orders, stages, dtype, rates=RATES):
    """Train an epoch for each stage, which says who is still there, and hold those of the last stage against separate fits."""
    X, y = make_data(35, dtype=dtype)
    network = make_network(*plans, dtype=dtype, seeds=SEEDS)
    update = Update(network, updates)
    present = [0, 1, 2]
    for order, indices in zip(orders, stages, strict=True):
        if indices != present:
            positions = [present.index(k) for k in indices]
            network = network.select(positions)
            update, present = update.select(network, [updates[k] for k in indices], positions), indices
        run(network, update, X, y, [of(order, indices)], [rates[k] for k in indices])
    for position, k in enumerate(present):
        alone = make_network(plans[k], dtype=dtype, seeds=[SEEDS[k]])
        own = Update(alone, [updates[k]])
        run(alone, own, X, y, [of(order, [k]) for order in orders], [rates[k]])
        assert update.n_updates == own.n_updates
        error = (state_of(network, position) - state_of(alone, 0)).norm() / state_of(alone, 0).norm()
        assert float(error) <= DTYPES[dtype]


STAGES = {
    "one_leaves": [[0, 1, 2], [0, 2], [0, 2]],
    "one_stays": [[0, 1, 2], [1], [1]],
    "one_after_the_other": [[0, 1, 2], [1, 2], [2]],
    "before_the_first_update": [[0, 2], [0, 2], [2]],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("name", [name for name in POPULATIONS if name != "torch"])
def test_those_that_stay_go_on_with_their_state(name, stages, dtype):
    updates = [UpdatePlan(optimizer) for optimizer in POPULATIONS[name]]
    assert_stayers_end_where_separate_fits_end([plan_network()] * 3, updates, make_orders(3, n_rows=35), stages, dtype)


@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("name", [name for name in POPULATIONS if name != "torch"])
def test_rules_of_the_same_numbers_go_on_with_their_state(name, stages):
    updates = [UpdatePlan(POPULATIONS[name][0])] * 3
    orders = make_orders(3, n_rows=35)
    assert_stayers_end_where_separate_fits_end([plan_network()] * 3, updates, orders, stages, torch.float64, [0.01] * 3)


@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("clippings", [None, (ClipNorm, 0.2, 0.5, 1.0), (ClipValue, 0.02, 0.1, 1.0)])
@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
@norms
def test_masks_penalties_constraints_and_clipping_go_on(norm, stages, clippings, is_own):
    plans = [plan_network(activation=ELU(), batch_norm=norm, **techniques) for techniques in EVERYTHING[:3]]
    make, *bounds = clippings or (lambda bound: None, *range(3))
    updates = [UpdatePlan(Momentum(beta), make(bound)) for beta, bound in zip((0.9, 0.5, 0.0), bounds, strict=True)]
    orders = make_orders(3, *([3] if is_own else []), n_rows=35)
    assert_stayers_end_where_separate_fits_end(plans, updates, orders, stages, torch.float64)


def test_the_state_is_copied():
    network = make_network(*[plan_network()] * 3)
    updates = [UpdatePlan(Momentum())] * 3
    update = Update(network, updates)
    X, y = make_data(35)
    run(network, update, X, y, make_orders(1, n_rows=35), RATES)
    before = [tensor.clone() for tensor in update.state_tensors()]
    chosen = network.select([0, 2])
    run(chosen, update.select(chosen, updates[:2], [0, 2]), X, y, make_orders(1, n_rows=35), RATES[:2])
    for tensor, expected in zip(update.state_tensors(), before, strict=True):
        assert torch.equal(tensor, expected)


def test_one_that_has_diverged_leaves_nothing_behind():
    network = make_network(*[plan_network()] * 3, dtype=torch.float32)
    updates = [UpdatePlan(Momentum())] * 3
    update = Update(network, updates)
    X, y = make_data(35, dtype=torch.float32)
    run(network, update, X, y, make_orders(2, n_rows=35), [0.01, 1e38, 0.03])
    assert not update.is_finite()
    chosen = network.select([0, 2])
    assert update.select(chosen, updates[:2], [0, 2]).is_finite()
    assert chosen.parameters.data.isfinite().all()


def test_an_update_without_state():
    network = make_network(*[plan_network()] * 3)
    update = Update(network, [UpdatePlan(SGD())] * 3)
    chosen = network.select([1])
    assert update.select(chosen, [UpdatePlan(SGD())], [1]).n_updates == 0
