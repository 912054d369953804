import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Nearly all tensors here are tiny: a second thread only waits, for milliseconds where another process has the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
