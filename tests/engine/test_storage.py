import pytest
import torch
from engine_plans import CPU

from skdnn.engine.storage import FlatStorage

SHAPES = [(3, 2), (3,), (1, 3), (1,)]


def make_storage(n_networks):
    storage = FlatStorage(SHAPES, n_networks, torch.float64, CPU)
    storage.data.copy_(torch.arange(len(storage.data)))
    return storage


@pytest.mark.parametrize("n_networks", [1, 3])
def test_views_share_memory_and_cover_all_of_it_once(n_networks):
    storage = make_storage(n_networks)
    leading = () if n_networks == 1 else (n_networks,)
    assert [view.shape for view in storage.views()] == [(*leading, *shape) for shape in SHAPES]
    assert all(view.is_contiguous() for view in storage.views())
    for view in storage.views():
        view.add_(100.0)
    assert torch.equal(storage.data, torch.arange(len(storage.data), dtype=torch.float64) + 100.0)


@pytest.mark.parametrize("n_networks", [1, 3])
def test_network_is_the_kth_part_of_every_view(n_networks):
    storage = make_storage(n_networks)
    for k in range(n_networks):
        own = storage.network(k)
        assert [tensor.shape for tensor in own] == SHAPES
        for tensor, view in zip(own, storage.views(), strict=True):
            expected = view if n_networks == 1 else view[k]
            assert tensor.data_ptr() == expected.data_ptr()
            assert torch.equal(tensor, expected)


def test_views_of_another_flat_tensor():
    storage = make_storage(2)
    other = torch.zeros_like(storage.data)
    storage.network(1, other)[0].fill_(1.0)
    assert torch.equal(storage.views(other)[0], torch.stack([torch.zeros(3, 2), torch.ones(3, 2)]).double())
    assert storage.data[1] == 1.0


def test_spread_puts_a_networks_value_on_all_its_elements():
    storage = make_storage(3)
    spread = storage.spread(torch.tensor([1.0, 2.0, 3.0]))
    assert spread.dtype == torch.float64
    for k, value in enumerate([1.0, 2.0, 3.0]):
        assert all((tensor == value).all() for tensor in storage.network(k, spread))


@pytest.mark.parametrize("n_networks", [1, 3])
def test_norms_are_those_of_each_network(n_networks):
    storage = make_storage(n_networks)
    expected = torch.stack([torch.cat([t.flatten() for t in storage.network(k)]).norm() for k in range(n_networks)])
    torch.testing.assert_close(storage.norms(storage.data), expected, rtol=1e-12, atol=0.0)


def test_storage_can_be_differentiated_through_when_made_under_inference_mode():
    with torch.inference_mode():
        storage = make_storage(1)
    assert not storage.data.is_inference()


def test_storage_of_nothing():
    storage = FlatStorage([], 2, torch.float32, CPU)
    assert storage.data.shape == (0,)
    assert storage.views() == storage.network(1) == []
