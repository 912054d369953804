"""Bounds on groups: what networks take, and what there is."""

import numpy as np
import pytest
import torch

from skdnn import MLPDeepClassifier
from skdnn.engine.program import instruction_set
from skdnn.training import MAX_GROUP, Lane, free_memory, group_size, memory, population

X = np.random.RandomState(0).normal(size=(60, 20))
Y = np.arange(60) % 3


def session_of(**params):
    settings = {"hidden_layer_sizes": (50,), "batch_size": 10, "random_state": 0}
    return MLPDeepClassifier(**settings | params)._prepare((X, Y, None), session_type=Lane).session


def test_groups_have_one_network_at_least_and_not_too_many():
    session = session_of()
    assert group_size(session, 1) == 1
    assert group_size(session, 10**12) == MAX_GROUP
    assert group_size(session, 5.5 * memory._bytes_of_network(session)) == 5


def test_large_networks_are_alone_where_they_would_be_stacked(monkeypatch):
    large = session_of(hidden_layer_sizes=(500, 400), batch_size=30)
    assert group_size(large, 10**12) == (MAX_GROUP if instruction_set() else 1)
    monkeypatch.setattr(population, "can_be_compiled", lambda *given: False)
    assert group_size(large, 10**12) == 1
    assert group_size(session_of(), 10**12) == MAX_GROUP


@pytest.mark.parametrize(
    "params",
    [
        {"hidden_layer_sizes": (60,)},
        {"optimizer": "adam"},
        {"batch_norm": True},
        {"dropout": 0.5},
        {"batch_size": 20},
        {"early_stopping": True},
    ],
    ids=str,
)
def test_what_takes_more_is_estimated_at_more(params):
    plain = {"optimizer": "sgd"}
    assert memory._bytes_of_network(session_of(**plain | params)) > memory._bytes_of_network(session_of(**plain))


def test_single_precision_takes_half():
    double, single = (memory._bytes_of_network(session_of(dtype=dtype)) for dtype in ("float64", "float32"))
    assert double == 2 * single


def test_what_is_free_is_a_number_of_bytes():
    assert 2**20 < free_memory() < 2**50
    assert free_memory(torch.device("cpu")) > 2**20


def test_where_nothing_is_known_there_is_some(monkeypatch):
    monkeypatch.setattr(memory, "_of_system", lambda: iter(()))
    monkeypatch.setattr(memory, "_of_container", lambda: iter((100,)))
    assert free_memory() == 100
    monkeypatch.setattr(memory, "_of_container", lambda: iter(()))
    assert free_memory() == 2**31


def test_rounded_factors_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    rounded, single = (memory._bytes_of_network(session_of(dtype=dtype)) for dtype in ("bfloat16", "float32"))
    assert rounded > single
