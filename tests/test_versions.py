import skdnn
from skdnn.engine import program


def test_versions_and_kernels_are_told(capsys):
    skdnn.show_versions()
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert told["skdnn"] == skdnn.__version__
    assert (program.instruction_set() or "without a C compiler") in told["kernels"]
    assert {"python", "torch", "scikit-learn", "threads"} <= told.keys()


def test_kernels_that_are_not_there_are_told(capsys, monkeypatch):
    monkeypatch.setattr(program, "_native", None)
    skdnn.show_versions()
    assert "installed without a C compiler" in capsys.readouterr().out
