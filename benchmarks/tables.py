"""Results as Markdown tables."""

import statistics

from benchmarks.measure import ratios, summary
from benchmarks.scaling import LABELS

OURS = "skdnn"
_N_SEEDS = 3


def table(header, rows, n_text=1):
    """Return a Markdown table; the first `n_text` columns are text, the others numbers and right-aligned."""
    lines = [header, ["---"] * n_text + ["---:"] * (len(header) - n_text), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def duration(seconds):
    """Write a time in a unit that leaves three digits before or after the point."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= scale or unit == "µs":
            return f"{seconds / scale:.3g} {unit}" if abs(seconds / scale) < 1000 else f"{seconds / scale:,.0f} {unit}"
    return None


def spread(values, write=duration):
    """Write the median with the range."""
    s = summary(values)
    return f"{write(s['median'])} ({write(s['min'])} to {write(s['max'])})"


def _times(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def fit_ratios(fits):
    """Return how many times as long as skdnn each contestant took, a row a workload."""
    names = list(dict.fromkeys(name for result in fits.values() for name in result["contestants"] if name != OURS))
    rows = []
    for workload, result in fits.items():
        runs = result["contestants"]
        ours = runs[OURS]["seconds"]
        cells = [spread(ratios(runs[n]["seconds"], ours).values(), _times) if n in runs else "" for n in names]
        rows.append([workload, duration(statistics.median(ours)), *cells])
    return table(["workload", OURS, *names], rows)


def fit_details(fits):
    """Return times, cores and accuracies of every contestant on every workload."""
    rows = []
    for workload, result in fits.items():
        for name, run in result["contestants"].items():
            step = statistics.median(run["seconds"]) / result["steps"]
            cores = statistics.median(run["n_cores"])
            rows.append(
                [workload, name, spread(run["seconds"]), duration(step), f"{cores:.2f}", *_learned(run, result["band"])]
            )
    return table(["workload", "contestant", "fit: median (range)", "a step", "cores", "accuracy", "learned"], rows, 2)


def _learned(run, band):
    accuracy = statistics.mean(run["accuracies"])
    return f"{accuracy:.3f}", f"yes (over {band})" if accuracy >= band else f"**no** (under {band})"


def keras_ratios(keras):
    """Return how many times as long as skdnn Keras took."""
    rows = []
    for backend, fits in keras.items():
        for workload, result in fits.items():
            ours, theirs = result["contestants"][OURS], result["contestants"]["Keras"]
            ratio = spread(ratios(theirs["seconds"], ours["seconds"]).values(), _times)
            accuracies = [f"{statistics.mean(run['accuracies']):.3f}" for run in (ours, theirs)]
            rows.append([workload, backend, spread(ours["seconds"]), spread(theirs["seconds"]), ratio, *accuracies])
    return table(["workload", "backend", OURS, "Keras", "times as long", f"accuracy, {OURS}", "Keras"], rows, 2)


def limits(fits):
    """Return the arithmetic of each workload, the matrix rate, and what share of it each contestant's time is."""
    rows = []
    for workload, result in fits.items():
        limit, runs = result["limit"], result["contestants"]
        shares = [
            f"{limit['seconds'] / statistics.median(runs[n]['seconds']):.0%}" if n in runs else ""
            for n in (OURS, "PyTorch expert", "JAX scan")
        ]
        ours = statistics.median(runs[OURS]["seconds"])
        settings = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in limit["settings"].items())
        rows.append(
            [
                workload,
                f"{limit['flop'] / 1e9:.3g}",
                f"{limit['rate'] / 1e9:.0f} ({limit['product']}, {limit['setting']})",
                settings,
                duration(limit["seconds"]),
                duration(limit["own_seconds"]),
                duration(ours),
                *shares,
                f"{limit['own_seconds'] / ours:.0%}",
            ]
        )
    header = ["workload", "GFLOP", "fastest product, GFLOP/s", "by setting", "time at that rate", "its own products alone"]
    return table([*header, OURS, f"share, {OURS}", "expert", "JAX", f"own products' share, {OURS}"], rows)


def agreement(result, other="PyTorch expert"):
    """Return how accuracies of skdnn and another contestant over the first seeds differ, and whether within noise.

    The noise is twice the standard error of the difference of both means, and no less than one row in 200.
    """
    ours, theirs = (result["contestants"][name]["accuracies"][:_N_SEEDS] for name in (OURS, other))
    noise = 2 * sum(statistics.variance(a) / len(a) for a in (ours, theirs)) ** 0.5 if len(ours) > 1 else 0.0
    noise = max(noise, 0.005)
    difference = statistics.mean(ours) - statistics.mean(theirs)
    return ours, theirs, difference, noise


def accuracies(fits):
    """Return the table of `agreement`."""
    rows = []
    for workload, result in fits.items():
        ours, theirs, difference, noise = agreement(result)
        verdict = "yes" if abs(difference) <= noise else "better" if difference > 0 else "**no**"
        rows.append([workload, *(_list(values) for values in (ours, theirs)), f"{difference:+.4f}", f"{noise:.4f}", verdict])
    return table(["workload", OURS, "PyTorch expert", "difference of means", "noise", "agrees"], rows)


def _list(values):
    return ", ".join(f"{value:.4f}" for value in values)


def prediction(results):
    """Return prediction times, and ratios to skdnn's."""
    names = list(next(iter(results.values())))
    rows = []
    for n, seconds in results.items():
        cells = [f"{duration(statistics.median(seconds[c]))} ({_ratio(seconds[c], seconds[OURS])})" for c in names[1:]]
        rows.append([f"{int(n):,}", spread(seconds[OURS]), *cells])
    return table(["rows", f"{OURS} (range)", *(f"{name} (times {OURS}'s)" for name in names[1:])], rows)


def _ratio(theirs, ours):
    return _times(ratios(theirs, ours)["median"])


def fixed(results):
    """Return what a fit costs beside its epochs."""
    rows = []
    for name, run in results.items():
        costs = [fit - epoch for fit, epoch in zip(run["fit"], run["epoch"], strict=True)]
        rows.append([name, spread(run["fit"]), spread(run["epoch"]), spread(costs)])
    return table(["contestant", "fit of one epoch", "an epoch itself", "fixed cost"], rows)


def imports(results):
    """Return import times."""
    return table(["import", "median (range)"], [[name, spread(seconds)] for name, seconds in results.items()])


def company(results):
    """Return fit times with one and two threads, alone and beside a busy process."""
    rows = []
    for workload, contestants in results.items():
        for name, times in contestants.items():
            two = _times(ratios(times["1 alone"], times["2 alone"])["median"])
            busy = [_times(ratios(times[f"{n} busy"], times[f"{n} alone"])["median"]) for n in (1, 2)]
            cells = [duration(statistics.median(times[case])) for case in ("1 alone", "2 alone", "1 busy", "2 busy")]
            rows.append([workload, name, *cells, two, *busy])
    header = ["workload", "contestant", "1 thread", "2 threads", "1, beside a busy process", "2, beside a busy process"]
    return table([*header, "gain of the second thread", "busy over alone, 1 thread", "busy over alone, 2 threads"], rows, 2)


def scaling(results):
    """Return one table an axis."""
    parts = []
    for axis, result in results.items():
        names = [name for name in result if name != "values"]
        rows = [
            [value, *(duration(statistics.median(result[name][i])) for name in names)]
            + [_ratio(result[name][i], result[OURS][i]) for name in names if name != OURS]
            for i, value in enumerate(result["values"])
        ]
        parts.append(table([LABELS[axis], *names, *(f"{name}, times" for name in names if name != OURS)], rows))
    return "\n\n".join(parts)


def searches(results):
    """Return the times of searches over the same candidates, and what the best candidate scored."""
    rows = []
    for name, result in results["in turn"].items():
        ours = next(iter(result["contestants"].values()))["seconds"]
        n_fits = result["n_candidates"] * result["n_folds"]
        for contestant, run in result["contestants"].items():
            given = f"{run['n_given']} of {result['n_candidates']}" if run["n_given"] < result["n_candidates"] else "all"
            score, band = run["best_score"], result["band"]
            learned = f"yes (over {band:.2g})" if score >= band else f"**no** (under {band:.2g})"
            fit = duration(statistics.median(run["seconds"]) / n_fits)
            times = spread(ratios(run["seconds"], ours).values(), _times)
            cores = statistics.median(run["n_cores"])
            rows.append([name, contestant, given, spread(run["seconds"]), fit, times, f"{cores:.2f}", f"{score:.4f}", learned])
    header = ["search", "contestant", "candidates given", "all candidates: median (range)", "a candidate and fold"]
    return table([*header, "times as long as the first", "cores", "best score", "learned"], rows, 3)


def search_agreement(results):
    """Return how far searches in lockstep find what searches one by one find."""
    rows = []
    for name, result in results["in turn"].items():
        for contestant, run in result["contestants"].items():
            if "same_best" in run:
                same = "yes" if run["same_best"] else "**no**"
                rows.append([name, contestant, same, f"{run['difference']:.2g}", run["votes"]])
    header = [
        "search",
        "beside the first contestant",
        "same best candidate",
        "largest difference of a score",
        "in rows of a fold",
    ]
    return table(header, rows, 2)


def search_processes(results):
    """Return the times of searches in one process and in several."""
    rows = []
    for name, result in results["processes"].items():
        one, several = result["seconds"].values()
        gain = spread(ratios(one, several).values(), _times)
        n_processes = list(result["seconds"])[1]
        same = "yes" if result["same_best"] and not result["difference"] else "**no**"
        rows.append([name, n_processes, spread(one), spread(several), gain, duration(result["cold"]), same])
    header = ["search", "processes", "in one process", "in several", "gain", "the first, which starts them", "same scores"]
    return table(header, rows)


def memory(results):
    """Return the peaks of memory."""
    rows = []
    for name, run in results["training"].items():
        what = f"training from a file of {run['file'] / 1e9:.1f} GB"
        rows.append([what, name, f"{run['above_imports'] / 1e6:.0f} MB above imports", duration(run["seconds"])])
    for name, run in results["prediction"].items():
        what = f"prediction of {run['rows']:,} rows, 256 units"
        rows.append([what, name, f"{run['beside'] / 1e6:.0f} MB beside input and output", duration(run["seconds"])])
    return table(["what", "contestant", "peak", "time"], rows, 2)
