"""The report: tables, figures, the command and the machine."""

from benchmarks import tables
from benchmarks.aims import aims_table
from benchmarks.contestants import CONTESTANTS
from benchmarks.searches import N_FOLDS, SEARCHES
from benchmarks.workloads import WORKLOADS

_INTRODUCTION = """# Benchmarks

Contestants run in turn, A B C A B C ..., on the same rows with the same architecture, optimizer, batch size and number of
epochs; a first round is not counted. Figures are medians, with the range of the rounds in brackets; ratios are taken round by
round. {quick}

Command: `{command}`, {minutes:.0f} minutes.

{machine}
"""

_FITS = """Times of other contestants as multiples of skdnn's: over 1, skdnn is faster. "full" is ELU, batch norm, dropout,
max norm and an l1 penalty, which `MLPClassifier` does not have. Accuracies are those on test rows (iris: training rows)."""

_LIMIT = """The products that a fit cannot do without (outputs, kernels' gradients, inputs' gradients) at the rate of the
fastest product that torch has here, of those of the workload's own shapes and of 1,024 x 1,024 x 1,024, under each setting that
computes in the dtype's own precision; beside that the same products at the rates of their own shapes, which is what is left
where nothing but products is done. Over 100 %, skdnn's own kernels multiply faster than any of torch's."""

_COMPANY = """One thread and two, alone and beside another process that keeps one core busy; shorter fits than above. Where the
gain is over 1, two threads are faster."""

_KERAS = "Keras' backend is fixed when it is imported: each backend has a process of its own, with skdnn in turn."

_CORES = """Cores are processor time over time: as many as there are threads at most. On one thread, anything clearly below 1
says that other processes wanted the machine, and that the figures are rough."""

_SEARCHES = f"""Every contestant searches over the same candidates: a pipeline of a `MinMaxScaler` and the estimator,
{N_FOLDS} folds, a last fit of the best candidate on all rows, float32, one thread. Where only some of the candidates are given,
spread evenly over all, times are told as if it had been all of them. Best scores are mean accuracies over the folds.

![Searches](figures/searches.png)"""

_PROCESSES = "Each process has one thread. The processes that a first search starts are there for the next ones."

_MEMORY = "Resident anonymous memory, each figure in a process of its own."


def _sections(results):
    """Yield title, text and table of all that was measured."""
    for n_threads, fits in results.get("fits", {}).items():
        if not fits:
            continue
        case = f"{n_threads} thread{'s' * (n_threads > '1')}"
        figure = "\n\n![Fit times](figures/fits.png)" if n_threads == "1" else ""
        yield f"Fits, {case}", _FITS + figure, tables.fit_ratios(fits)
        yield f"The gap to the limit, {case}", _LIMIT, tables.limits(fits)
        if n_threads == "1":
            yield "Accuracy", f"The first three seeds of each contestant, {case}.", tables.accuracies(fits)
    for part, title, text, write in (
        ("keras", "Keras 3, 1 thread", _KERAS, tables.keras_ratios),
        ("prediction", "Prediction, 64-100-10, 1 thread", "", tables.prediction),
        ("fixed", "A fit's fixed cost, 100 rows, 64-100-10", "", tables.fixed),
        ("import", "Import, fresh processes", "", tables.imports),
        ("company", "Threads and company", _COMPANY, tables.company),
        ("scaling", "How the cost grows", "![Growth of the cost](figures/scaling.png)", tables.scaling),
        ("memory", "Memory", _MEMORY, tables.memory),
    ):
        if results.get(part):
            yield title, text, write(results[part])
    yield from _search_sections(results.get("searches", {}))
    for n_threads, fits in results.get("fits", {}).items():
        if not fits:
            continue
        yield f"All fits, {n_threads} thread{'s' * (n_threads > '1')}", _CORES, tables.fit_details(fits)


def _search_sections(results):
    if results.get("in turn"):
        yield "Searches, 1 thread", _SEARCHES, tables.searches(results)
        yield "Searches: what they find", "", tables.search_agreement(results)
    if results.get("processes"):
        yield "Searches in several processes", _PROCESSES, tables.search_processes(results)


def _setting():
    """Describe contestants and workloads."""
    contestants = [[c.name, c.description, "" if c.is_installed else "left out, not installed"] for c in CONTESTANTS.values()]
    workloads = [
        [w.name, "-".join(map(str, w.hidden)), w.batch_size, w.optimizer, w.rate, w.epochs, w.n_rows or "all", w.rounds]
        for w in WORKLOADS.values()
    ]
    header = ["workload", "hidden layers", "batch size", "optimizer", "learning rate", "epochs", "rows", "rounds"]
    searches = []
    for name, search in SEARCHES.items():
        w = search.workload
        sizes = ["-".join(map(str, w.hidden)), w.batch_size, w.epochs, w.n_rows or "all", w.rounds, len(search.candidates)]
        searches.append([name, *sizes, f"`{search.grid}`"])
    return "\n\n".join(
        [
            tables.table(["contestant", "what it is", ""], contestants, n_text=3),
            tables.table(header, workloads),
            tables.table(["search", "hidden layers", "batch size", "epochs", "rows", "rounds", "candidates", "grid"], searches),
        ]
    )


def write_report(results, folder):
    """Write RESULTS.md and the figures into a folder.

    Returns
    -------
    path : Path
        Of RESULTS.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _draw(results, folder / "figures")
    introduction = _INTRODUCTION.format(
        quick="**A quick run: fewer workloads, rows, epochs and rounds, so the figures are rough.**"
        if results["quick"]
        else "",
        command=results["command"],
        minutes=results["minutes"],
        machine=tables.table(["machine", ""], [[name, value] for name, value in results["machine"].items()], n_text=2),
    )
    parts = [introduction, "## Aims", aims_table(results)]
    for title, text, content in _sections(results):
        parts += [f"## {title}", *filter(None, [text]), content]
    parts += ["## Contestants and workloads", _setting()]
    path = folder / "RESULTS.md"
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    return path


def _draw(results, folder):
    try:
        from benchmarks import figures
    except ImportError:
        print("figures: left out, matplotlib is not installed")
        return
    folder.mkdir(exist_ok=True)
    fits = results.get("fits", {}).get("1")
    if fits:
        figures.draw_fits(fits, folder)
        figures.draw_limits(fits, folder)
    if results.get("searches", {}).get("in turn"):
        figures.draw_searches(results["searches"]["in turn"], folder)
    if results.get("scaling"):
        figures.draw_scaling(results["scaling"], folder)
