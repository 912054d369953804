"""The command: measure everything, or parts of it, and write tables and figures.

    python -m benchmarks                 # everything: benchmarks/RESULTS.md and benchmarks/figures/
    python -m benchmarks --quick         # reduced, in about three minutes: out/bench-quick/
    python -m benchmarks --only fits --workloads digits "MNIST b50"      # parts: out/bench/
    python -m benchmarks --only searches # of hyperparameters, candidates in lockstep and one by one: out/bench/
    python -m benchmarks --report out/bench/results.json     # tables and figures of earlier measurements anew

The file results.json beside the report under out/ has every single measurement.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.contestants import CONTESTANTS, IN_ONE_PROCESS
from benchmarks.machine import describe
from benchmarks.report import write_report
from benchmarks.worker import ROOT, measure
from benchmarks.workloads import WORKLOADS

KERAS_BACKENDS = {"torch": "torch", "jax": "jax"}  # backend: the package that it needs
_WITH_KERAS = ("digits", "MNIST b50", "MNIST b50 Adam full")


def installed(names):
    """Return those contestants that are installed."""
    return [name for name in names if CONTESTANTS[name].is_installed]


def _attempt(job, **arguments):
    """Measure, or return an empty result: what other processes of the same part measured is worth having without it."""
    try:
        return measure(job, **arguments)
    except RuntimeError as error:
        print(f"{job}: left out, {error}", file=sys.stderr)
        return {}


def _fits(options):
    results = {}
    for n_threads in (1,) if options.quick else (1, 2):
        names = [name for name in options.workloads if n_threads in WORKLOADS[name].n_threads]
        # With more threads only those that know what to do with them.
        among = IN_ONE_PROCESS if n_threads == 1 else ("skdnn", "MLPClassifier", "PyTorch expert", "JAX scan")
        if names:
            results[str(n_threads)] = _attempt(
                "fits",
                n_threads=n_threads,
                contestants=installed(among),
                workloads=names,
                quick=options.quick,
            )
    return results


def _keras(options):
    names = [name for name in options.workloads if name in (_WITH_KERAS[:1] if options.quick else _WITH_KERAS)]
    results = {}
    for backend in KERAS_BACKENDS:
        if names and CONTESTANTS["Keras"].is_installed and (backend != "jax" or CONTESTANTS["JAX scan"].is_installed):
            results[backend] = _attempt(
                "fits",
                keras_backend=backend,
                contestants=["skdnn", "Keras"],
                workloads=names,
                quick=options.quick,
                with_limit=False,
            )
    return results


def _prediction(options):
    slow = {"skorch", "PyTorch DataLoader"}  # a million rows take the one half a minute, and the other is the expert's here
    names = [name for name in installed(IN_ONE_PROCESS) if name not in slow or (name == "skorch" and not options.quick)]
    return measure("prediction", contestants=names, quick=options.quick)


def _fixed(options):
    names = ["skdnn", "MLPClassifier", "skorch", "PyTorch expert"]
    return measure("fixed", contestants=names, quick=options.quick)


def _import(options):
    return measure("import", quick=options.quick)


def _company(options):
    contestants = ["skdnn", "MLPClassifier", "PyTorch expert"]
    chosen = {"workloads": ["digits"]} if options.quick else {}
    return measure("company", n_threads=2, contestants=contestants, quick=options.quick, **chosen)


def _scaling(options):
    contestants = ["skdnn", "MLPClassifier", "PyTorch expert"]
    return measure("scaling", contestants=contestants, quick=options.quick)


def _searches(options):
    return {
        "in turn": measure("searches", quick=options.quick),
        "processes": _attempt("search processes", quick=options.quick),
    }


def _memory(options):
    n_rows = 200_000 if options.quick else 1_000_000
    return {
        "training": {"skdnn": measure("training memory", contestant="skdnn", gigabytes=0.4 if options.quick else 4.0)},
        "prediction": {
            name: measure("prediction memory", contestant=name, n_rows=n_rows) for name in ("skdnn", "MLPClassifier")
        },
    }


PARTS = {
    "import": _import,
    "fixed": _fixed,
    "prediction": _prediction,
    "fits": _fits,
    "keras": _keras,
    "company": _company,
    "scaling": _scaling,
    "searches": _searches,
    "memory": _memory,
}


def _parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer workloads, rows and rounds: about three minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--workloads", nargs="+", metavar="NAME", help="parts of names of workloads of the fits")
    parser.add_argument("--output", type=Path, help="folder for the report (default: see above)")
    parser.add_argument("--report", type=Path, metavar="JSON", help="measure nothing: report an earlier results.json")
    options = parser.parse_args(arguments)
    options.is_whole = not (options.quick or options.only or options.workloads)
    parts = options.workloads or [""]
    names = [name for name in WORKLOADS if any(part.lower() in name.lower() for part in parts)]
    options.workloads = [name for name in names if WORKLOADS[name].quick or not options.quick]
    return options


def _measure_all(options, arguments):
    start = time.perf_counter()
    for name, contestant in CONTESTANTS.items():
        if not contestant.is_installed:
            print(f"{name}: left out, {contestant.needs} is not installed (pip install -c constraints.txt '.[bench]')")
    results = {"machine": describe(), "quick": options.quick, "command": " ".join(["python -m benchmarks", *arguments])}
    for name in options.only or PARTS:
        print(f"--- {name}, after {time.perf_counter() - start:.0f} s", flush=True)
        try:
            results[name] = PARTS[name](options)
        except RuntimeError as error:  # the other parts are worth having without it
            print(f"{name}: left out, {error}", file=sys.stderr)
    results["minutes"] = (time.perf_counter() - start) / 60
    return results


def main(arguments=None):
    """Measure and report."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parse(arguments)
    scratch = ROOT / "out" / ("bench-quick" if options.quick else "bench")
    if options.report:
        results = json.loads(options.report.read_text(encoding="utf-8"))
        folder = options.output or options.report.parent
    else:
        results = _measure_all(options, arguments)
        folder = options.output or (ROOT / "benchmarks" if options.is_whole else scratch)
        raw = options.output or scratch
        raw.mkdir(parents=True, exist_ok=True)
        (raw / "results.json").write_text(json.dumps(results), encoding="utf-8")
    print(f"written: {write_report(results, folder)}")


if __name__ == "__main__":
    main()
