import pytest

from skdnn.engine import program


@pytest.fixture(params=["side by side", "stacked"])
def kind(request, monkeypatch):
    """How networks train together: by programs, from the third epoch of five batches on, or as one with an axis more."""
    monkeypatch.setattr("skdnn.engine.trainer.FIRST_COMPILED_STEP", 11)
    if request.param == "stacked":
        for module in ("skdnn.engine.trainer", "skdnn.training.population"):
            monkeypatch.setattr(f"{module}.can_be_compiled", lambda *given: False)
    elif program.instruction_set() is None:
        pytest.skip("built without a C compiler")
    return request.param
