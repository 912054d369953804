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
def test_views_share_memory_and_cover_all_but_the_gaps_once(n_networks):
    storage = make_storage(n_networks)
    leading = () if n_networks == 1 else (n_networks,)
    assert [view.shape for view in storage.views()] == [(*leading, *shape) for shape in SHAPES]
    storage.data.zero_()
    for view in storage.views():
        view.add_(1.0)
    per_network = storage.data.view(n_networks, -1)
    assert per_network[:, :13].eq(1.0).all()
    assert per_network[:, 13:].eq(0.0).all()
    assert per_network.shape[1] == (13 if n_networks == 1 else 16)  # 128 bytes


@pytest.mark.parametrize("n_networks", [1, 3])
def test_rows_are_the_networks_vectors(n_networks):
    storage = make_storage(n_networks)
    for k in range(n_networks):
        expected = torch.cat([tensor.flatten() for tensor in storage.network(k)])
        row = storage.rows(slice(k, k + 1))
        assert torch.equal(row, expected)
        assert row.data_ptr() == storage.network(k)[0].data_ptr()
        assert row.data_ptr() % 64 == 0  # of a cache line
    if n_networks > 1:
        assert torch.equal(storage.rows(slice(1, 3))[1], storage.rows(slice(2, 3)))


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
    assert storage.data[1] == 1.0  # as it was


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
