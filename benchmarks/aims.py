"""What skdnn aims at, and what was measured."""

import statistics
from typing import NamedTuple

from benchmarks.measure import ratios
from benchmarks.searches import OURS as OUR_SEARCH
from benchmarks.tables import OURS, agreement, duration, table


class Aim(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    what, aim, measured : str
    is_met : bool or None
        None where it was not measured.
    """

    what: str
    aim: str
    measured: str
    is_met: bool | None


def _times_as_fast(results, workload, other, least):
    runs = results.get("fits", {}).get("1", {}).get(workload, {}).get("contestants", {})
    return _ratio(f"{workload}: times as fast as {other}", runs, OURS, other, least)


def _ratio(what, runs, ours, other, least):
    if not {ours, other} <= set(runs):
        return Aim(what, f"at least {least}", "not measured", None)
    ratio = ratios(runs[other]["seconds"], runs[ours]["seconds"])
    measured = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
    return Aim(what, f"at least {least}", measured, ratio["median"] >= least)


def _wide(results):
    what = "wide b256: share of the matrix rate"
    try:
        result = results["fits"]["1"]["wide b256"]
    except KeyError:
        return [Aim(what, "at least 85 %", "not measured", None)]
    limit = result["limit"]
    share = limit["seconds"] / statistics.median(result["contestants"][OURS]["seconds"])
    settings = limit["settings"]
    # Where oneDNN's products are no faster, the expert's default is the same product.
    pays = settings.get("oneDNN", 0.0) > 1.2 * settings["default"]
    return [
        Aim(what, "at least 85 %", f"{share:.0%}", share >= 0.85),
        _times_as_fast(results, "wide b256", "PyTorch expert", 1.7 if pays else 1.0),
    ]


def _rounded(results):
    """In bfloat16, beside float32, and beside autocast, which has no initial and best weights to keep in so short a fit."""
    fits = results.get("fits", {}).get("1", {})
    runs = {name: fits[name]["contestants"][OURS] for name in ("wide b256", "wide b256 bfloat16") if name in fits}
    return [
        _ratio("wide b256 bfloat16: times as fast as float32", runs, "wide b256 bfloat16", "wide b256", 1.8),
        _times_as_fast(results, "wide b256 bfloat16", "PyTorch expert", 0.9),
    ]


def _threads(results):
    aims = []
    for workload, contestants in results.get("company", {}).items():
        times = contestants[OURS]
        gain = ratios(times["1 alone"], times["2 alone"])["median"]
        aims.append(
            Aim(f"{workload}: one thread's time over two threads'", "at least 1 (0.95 is noise)", f"{gain:.2f}", gain >= 0.95)
        )
        busy = ratios(times["2 busy"], times["2 alone"])["median"]
        aims.append(
            Aim(f"{workload}: two threads, beside a busy process over alone", "at most 1.5", f"{busy:.2f}", busy <= 1.5)
        )
    return aims or [Aim("two threads; beside a busy process", "at least 1; at most 1.5", "not measured", None)]


def _fixed(results):
    what, aim = "fit of one epoch on 100 rows: beyond the training itself", "under 4 ms"
    if "fixed" not in results:
        return Aim(what, aim, "not measured", None)
    run = results["fixed"][OURS]
    cost = statistics.median(a - b for a, b in zip(run["fit"], run["epoch"], strict=True))
    return Aim(what, aim, duration(cost), cost < 0.004)


def _prediction(results):
    aims = [
        ("1", "one row predicted: beyond MLPClassifier", "under 150 µs"),
        ("1000000", "1,000,000 rows: times as fast", "over 1"),
    ]
    if "prediction" not in results:
        return [Aim(what, aim, "not measured", None) for _, what, aim in aims]
    medians = {n: {name: statistics.median(s) for name, s in each.items()} for n, each in results["prediction"].items()}
    beyond = medians["1"][OURS] - medians["1"]["MLPClassifier"]
    million = ratios(results["prediction"]["1000000"]["MLPClassifier"], results["prediction"]["1000000"][OURS])["median"]
    return [
        Aim(*aims[0][1:], duration(beyond), beyond < 150e-6),
        Aim(*aims[1][1:], f"{million:.2f}", million > 1),
    ]


def _import(results):
    what, aim = "`import skdnn` beyond `import torch, sklearn, skorch`", "at most 0.15 s"
    if "import" not in results:
        return Aim(what, aim, "not measured", None)
    with_skdnn, without = (results["import"][name] for name in ("torch, sklearn, skorch, skdnn", "torch, sklearn, skorch"))
    more = statistics.median(with_skdnn) - statistics.median(without)
    return Aim(what, aim, duration(more), more <= 0.15)


def _agreement(results):
    what, aim = "accuracy agrees with expert PyTorch within noise, three seeds", "every workload"
    fits = results.get("fits", {}).get("1", {})
    if not fits:
        return Aim(what, aim, "not measured", None)
    off = [
        workload for workload, result in fits.items() for *_, difference, noise in [agreement(result)] if difference < -noise
    ]
    return Aim(what, aim, f"{len(fits) - len(off)} of {len(fits)}" + (f"; not: {', '.join(off)}" if off else ""), not off)


def _memory(results):
    if "memory" not in results:
        return [Aim("memory", "see below", "not measured", None)]
    training, predicting = (results["memory"][what][OURS] for what in ("training", "prediction"))
    return [
        Aim(
            f"training from a file of {training['file'] / 1e9:.1f} GB: peak above imports",
            "under 1.5 GB",
            f"{training['above_imports'] / 1e9:.2f} GB",
            training["above_imports"] < 1.5e9,
        ),
        Aim(
            f"{predicting['rows']:,} rows through 256 units: peak beside input and output",
            "under 300 MB",
            f"{predicting['beside'] / 1e6:.0f} MB",
            predicting["beside"] < 300e6,
        ),
    ]


# Workload, contestant, how many times as fast.
_RATIOS = [
    ("digits", "MLPClassifier", 2.8),
    ("digits", "PyTorch expert", 2.8),
    ("digits", "skorch", 22),
    ("digits", "JAX scan", 1.0),
    ("MNIST b50", "MLPClassifier", 2.0),
    ("MNIST b50", "PyTorch expert", 1.6),
    ("MNIST b50", "skorch", 4.0),
    ("MNIST b50", "JAX scan", 0.8),
    ("MNIST b50 Adam full", "PyTorch expert", 1.5),
    ("iris", "MLPClassifier", 1.0),
    ("digits float64", "MLPClassifier", 2.2),
    ("MNIST b50 float64", "MLPClassifier", 1.25),
]


# Search, contestant, how many times as fast.
_SEARCH_RATIOS = [
    ("digits", "GridSearchCV(MLPClassifier)", 5.0),
    ("digits", "GridSearchCV(skorch)", 40),
    ("digits", "GridSearchCV(MLPDeepClassifier)", 1.7),
    ("MNIST, 10,000 rows", "GridSearchCV(MLPDeepClassifier)", 1.6),
]


def _searches(results):
    found = results.get("searches", {})
    in_turn = found.get("in turn", {})
    return [
        *(_search_ratio(in_turn, *ratio) for ratio in _SEARCH_RATIOS),
        *(_search_agreement(in_turn, search) for search in dict.fromkeys(search for search, *_ in _SEARCH_RATIOS)),
        _search_processes(found.get("processes", {}), "digits", 1.7),
    ]


def _search_ratio(in_turn, search, other, least):
    runs = in_turn.get(search, {}).get("contestants", {})
    return _ratio(f"search, {search}: times as fast as {other}", runs, OUR_SEARCH, other, least)


def _search_agreement(in_turn, search):
    what, aim = f"search, {search}: best candidate and scores of the search one by one", "the same; within one row"
    runs = in_turn.get(search, {}).get("contestants", {})
    compared = [run for run in runs.values() if "same_best" in run]
    if not compared:
        return Aim(what, aim, "not measured", None)
    is_same, votes = all(run["same_best"] for run in compared), max(run["votes"] for run in compared)
    measured = f"{'the same' if is_same else 'another'}; {votes} row{'s' * (votes != 1)}"
    return Aim(what, aim, measured, is_same and votes <= 1)


def _search_processes(processes, search, least):
    what, aim = f"search, {search}: times as fast in two processes as in one", f"at least {least}"
    if search not in processes:
        return Aim(what, aim, "not measured", None)
    gain = ratios(*processes[search]["seconds"].values())["median"]
    return Aim(what, aim, f"{gain:.2f}", gain >= least)


def aims(results):
    """Return the list of `Aim`."""
    return [
        *(_times_as_fast(results, *ratio) for ratio in _RATIOS),
        *_wide(results),
        *_rounded(results),
        *_threads(results),
        _fixed(results),
        *_prediction(results),
        _import(results),
        _agreement(results),
        *_memory(results),
        *_searches(results),
    ]


def aims_table(results):
    """Return the aims beside what was measured, as a Markdown table."""
    words = {True: "yes", False: "**no**", None: ""}
    rows = [[a.what, a.aim, a.measured, words[a.is_met]] for a in aims(results)]
    return table(["what", "aim", "measured", "met"], rows, n_text=4)
