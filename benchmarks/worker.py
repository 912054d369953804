"""A measurement in a process of its own, with its own threads and environment.

``python -m benchmarks.worker JOB`` reads arguments as JSON from standard input, says on standard error what it does, and writes
the result as JSON to standard output.
"""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import quiet

ROOT = Path(__file__).resolve().parents[1]

# What a process may measure, as "module:function" below this package.
JOBS = {
    "fits": "fits:fit_times",
    "prediction": "prediction:prediction_times",
    "fixed": "startup:fixed_costs",
    "import": "startup:import_times",
    "company": "company:company_times",
    "scaling": "scaling:scaling_times",
    "searches": "searches:search_times",
    "search processes": "searches:process_times",
    "training memory": "memory:memory_of_training",
    "prediction memory": "memory:memory_of_prediction",
}


def environment(n_threads, keras_backend=None):
    """Return the environment for a process of so many threads: OpenMP, BLAS and XLA make their pools by it."""
    own = {name: str(n_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")}
    if n_threads == 1:
        own["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if keras_backend is not None:
        own["KERAS_BACKEND"] = keras_backend
    own["JAX_PLATFORMS"] = "cpu"
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | own


def measure(job, *, n_threads=1, keras_backend=None, **arguments):
    """Run a job in a fresh process and return its result.

    Parameters
    ----------
    job : str
        A name in `JOBS`.
    n_threads : int, default=1
    keras_backend : str, default=None
    **arguments : dict
        Of the job's function.

    Raises
    ------
    RuntimeError
        The process failed; what it said is on standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", job],
        input=json.dumps(arguments),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(n_threads, keras_backend),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the process for {job} ended with {done.returncode}")
    return json.loads(done.stdout)


def main():
    """Run the job that the command line names."""
    module, _, name = JOBS[sys.argv[1]].partition(":")
    arguments = json.load(sys.stdin)
    result_stream, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no result
    function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    with quiet():
        result = function(**arguments, log=functools.partial(print, file=sys.stderr, flush=True))
    json.dump(result, result_stream)


if __name__ == "__main__":
    main()
