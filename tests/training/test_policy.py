import threading

import pytest
import torch

from skdnn.training import compute_policy, multiplies_bfloat16, policy

CPU = torch.device("cpu")
SMALL, LARGE = policy._WORK_FOR_THREADS - 1, policy._WORK_FOR_THREADS


def settings():
    return torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def capability(monkeypatch):
    """Sets what the CPU is said to be able to, and forgets what has been probed."""

    def set_to(name, **instructions):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
        policy._onednn_pays.cache_clear()

    yield set_to
    policy._onednn_pays.cache_clear()


@pytest.fixture
def fast_onednn(monkeypatch):
    monkeypatch.setattr(policy, "_onednn_pays", lambda: True)


@pytest.mark.usefixtures("fast_onednn")
@pytest.mark.parametrize(
    ("work", "dtype", "device", "threads", "precision"),
    [
        (SMALL, torch.float32, "cpu", 1, None),
        (SMALL, torch.float64, "cpu", 1, None),
        (LARGE, torch.float32, "cpu", 3, "bf16"),
        (LARGE, torch.float64, "cpu", 3, None),
        (SMALL, torch.float32, "cuda", 3, None),
        (LARGE, torch.float32, "cuda", 3, None),
    ],
)
def test_settings_in_and_after_a_call(work, dtype, device, threads, precision):
    before = settings()
    with compute_policy(work, dtype, torch.device(device)):
        assert settings() == (threads, precision or before[1])
    assert settings() == before


@pytest.mark.usefixtures("fast_onednn")
@pytest.mark.parametrize("work", [SMALL, LARGE])
@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt])
def test_settings_are_restored_after_an_exception(work, exception):
    before = settings()
    with pytest.raises(exception), compute_policy(work, torch.float32, CPU):
        raise exception
    assert settings() == before


@pytest.mark.usefixtures("fast_onednn")
@pytest.mark.parametrize(("outer", "inner"), [(SMALL, LARGE), (LARGE, SMALL), (SMALL, SMALL), (LARGE, LARGE)])
def test_nested_calls(outer, inner):
    before = settings()
    with compute_policy(outer, torch.float32, CPU):
        during = settings()
        with compute_policy(inner, torch.float32, CPU):
            assert torch.get_num_threads() == (1 if SMALL in (outer, inner) else 3)
        assert settings() == during
    assert settings() == before


@pytest.mark.usefixtures("fast_onednn")
@pytest.mark.parametrize(("given", "used"), [(1, 1), (2, 1), (3, 3), (4, 4)])
def test_two_threads_are_as_good_as_one(given, used):
    torch.set_num_threads(given)
    with compute_policy(LARGE, torch.float32, CPU):
        assert settings() == (used, "bf16")
    assert torch.get_num_threads() == given


def test_a_setting_of_the_users_is_left_as_it_is():
    torch.set_num_threads(1)
    with compute_policy(SMALL, torch.float32, CPU):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("fast_onednn")
@pytest.mark.parametrize("work", [SMALL, LARGE])
@pytest.mark.parametrize("first_to_leave", ["main", "other"])
def test_two_threads_at_once(work, first_to_leave):
    # Torch's number of threads is one of each Python thread, and also what new threads start with: both must be restored.
    before, expected = settings(), (1 if work == SMALL else 3)
    seen = {}
    known, inside, one_left, both_left = (threading.Barrier(2, timeout=20) for _ in range(4))

    def run(name):
        torch.get_num_threads()  # a thread takes over the process' number when it first asks
        known.wait()
        with compute_policy(work, torch.float32, CPU):
            inside.wait()
            seen[name, "inside"] = torch.get_num_threads()
            if name != first_to_leave:
                one_left.wait()
        if name == first_to_leave:
            one_left.wait()
        both_left.wait()
        seen[name, "after"] = settings()

    other = threading.Thread(target=run, args=("other",))
    other.start()
    run("main")
    other.join()
    later = threading.Thread(target=lambda: seen.update({("later", "after"): settings()}))
    later.start()
    later.join()
    assert seen["main", "inside"] == seen["other", "inside"] == expected
    assert [seen[name, "after"] for name in ("main", "other", "later")] == [before] * 3


@pytest.mark.parametrize(
    ("name", "instructions"), [("AVX2", {}), ("DEFAULT", {}), ("NEON", {}), ("AVX512", {"amx_bf16": True})]
)
def test_onednn_is_not_tried_without_avx512_or_with_amx(capability, monkeypatch, name, instructions):
    capability(name, **instructions)
    monkeypatch.setattr(policy, "_precision", None)  # to touch it would raise
    assert policy._onednn_pays() is False


@pytest.mark.parametrize(("allowed_error", "pays"), [(1.0, True), (0.0, False)])
def test_onednn_pays_where_its_product_is_accurate(capability, monkeypatch, allowed_error, pays):
    capability("AVX512")
    monkeypatch.setattr(policy, "_FLOAT32_ERROR", allowed_error)
    before, generator = settings(), torch.get_rng_state()
    assert policy._onednn_pays() is pays
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_probe_tells_float32_from_bfloat16(capability, monkeypatch):
    capability("AVX512")
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: product(a.bfloat16(), b.bfloat16()).float() if a.dtype == torch.float32 else product(a, b),
    )
    assert policy._onednn_pays() is False


def test_the_probe_runs_once(capability, monkeypatch):
    capability("AVX512")
    first = policy._onednn_pays()
    monkeypatch.setattr(policy, "_FLOAT32_ERROR", -1.0)
    assert policy._onednn_pays() is first


@pytest.mark.parametrize(
    ("instructions", "device", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "cpu", True),
        ({"avx512_bf16": False, "amx_bf16": True}, "cpu", True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, "cpu", False),
        ({}, "cpu", False),
        ({"avx512_bf16": True, "amx_bf16": True}, "meta", False),
    ],
)
def test_bfloat16_needs_instructions_for_it(capability, instructions, device, expected):
    capability("AVX512", **instructions)
    assert multiplies_bfloat16(torch.device(device)) is expected
