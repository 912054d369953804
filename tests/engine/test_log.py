import pytest
import torch

from skdnn.engine.log import write_down


def calls_of(step):
    with torch.inference_mode():
        return write_down(step)


def test_a_step_changes_nothing_while_it_is_written_down():
    total, out = torch.ones(3), torch.zeros(3)
    calls = calls_of(lambda: torch.sqrt(total.add_(1.0).mul_(3.0), out=out))
    assert torch.equal(total, torch.ones(3))
    assert torch.equal(out, torch.zeros(3))
    assert calls[-1].result is out
    calls = calls[:-1]
    assert [call.schema.name for call in calls] == ["add", "mul"]
    assert [call.func for call in calls] == [torch.ops.aten.add_.Tensor, torch.ops.aten.mul_.Tensor]


def test_arguments_have_names_and_defaults():
    a, b = torch.ones(3), torch.ones(3)
    (plain,) = calls_of(lambda: torch.add(a, b))
    assert plain.arguments.keys() == {"self", "other", "alpha"}
    assert plain.arguments["self"] is a
    assert plain.arguments["other"] is b
    assert plain.arguments["alpha"] == 1
    (scaled,) = calls_of(lambda: torch.add(a, b, alpha=0.5))
    assert scaled.arguments["alpha"] == 0.5
    (clamped,) = calls_of(lambda: torch.clamp(a, max=2.0))
    assert (clamped.arguments["min"], clamped.arguments["max"]) == (None, 2.0)


def test_results_are_kept():
    a, b, out = torch.ones(3), torch.ones(3), torch.empty(3)
    results = []
    made, given, own = calls_of(lambda: results.extend([torch.add(a, b), torch.add(a, b, out=out), a.add_(b)]))
    assert [call.result for call in (made, given, own)] == results
    assert given.result is given.arguments["out"] is out
    assert own.result is a


def test_what_works_in_place_has_the_name_of_what_does_not():
    a, b, out = torch.ones(3), torch.ones(3), torch.empty(3)
    calls = calls_of(lambda: (torch.add(a, b), torch.add(a, b, out=out), a.add_(b), a.sqrt_(), torch.sqrt(b)))
    assert [(call.schema.name, call.schema.is_in_place) for call in calls] == [
        ("add", False),
        ("add", False),
        ("add", True),
        ("sqrt", True),
        ("sqrt", False),
    ]


def test_kernels_with_an_underscore_in_front_keep_theirs_at_the_end():
    state = [[torch.ones(3)] for _ in range(4)], [], [torch.ones(())]
    (call,) = calls_of(
        lambda: torch._fused_adam_(
            *state[0],
            *state[1:],
            lr=0.1,
            beta1=0.9,
            beta2=0.99,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
    )
    assert call.schema.name == "_fused_adam_"
    assert call.arguments["grads"] == state[0][1]


def test_nothing_is_written_down_after_an_error():
    def fail():
        raise RuntimeError("no step")

    with pytest.raises(RuntimeError, match="no step"):
        calls_of(fail)
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_steps_that_call_nothing_are_empty():
    assert calls_of(lambda: None) == []
