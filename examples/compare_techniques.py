"""Compare the techniques of training deep networks with a grid search: table, figure and CSV.

    python examples/compare_techniques.py [--data mnist] [--out out]

Every combination of the techniques in `TECHNIQUES` and `OPTIMIZERS` is cross-validated. As the grid is a full product, each
value of a technique meets each setting of all others: the summary compares them pair by pair, all else equal.
"""

import argparse
import csv
import signal
import sys
import time
from pathlib import Path

import numpy as np
from _mnist import load_mnist
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.datasets import load_digits
from sklearn.model_selection import ParameterGrid, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.components import ELU, L1, Momentum
from skdnn.displays import TechniqueComparisonDisplay
from skdnn.model_selection import VectorizedGridSearchCV, technique_effects

TECHNIQUES = {
    "activation": ["logistic", "relu", ELU()],
    "initializer": ["glorot_uniform", "he_normal"],
    "batch_norm": [False, True],
    "regularizer": [None, L1()],
    "max_norm": [None, 1.0],
}
# Each with a learning rate that suits it: at one rate for all, the rate would be compared and not the optimizer.
OPTIMIZERS = [(Momentum(), 0.02), ("adam", 0.005)]

# Deep enough for gradients to vanish, small enough for hundreds of fits.
HIDDEN_LAYER_SIZES = (50, 50, 50)
BATCH_SIZE = 50
RANDOM_STATE = 0


def load_data(name, n_samples=None):
    """Return X, y, the scaler that suits them, and what they are.

    Parameters
    ----------
    name : {"digits", "mnist"}
        Digits stand in for MNIST where that is not found.
    n_samples : int, default=None
        Rows to draw, stratified by class; by default 2,000 of MNIST and all digits.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float32
    y : ndarray of shape (n_samples,)
    scaler : transformer
    title : str
    """
    if name == "mnist":
        try:
            data = load_mnist()
        except FileNotFoundError as error:
            print(f"{error} Going on with scikit-learn's digits instead.", file=sys.stderr)
        else:
            # The pixels are in [0, 1]. Divided by their deviations, those at the border, which are hardly ever lit, would
            # drown the others: they are centred only.
            X, y = _draw(data.X_train, data.y_train, n_samples or 2_000)
            return X, y, StandardScaler(with_std=False), "MNIST"
    X, y = load_digits(return_X_y=True)
    X, y = _draw(X.astype(np.float32), y, n_samples or len(X))
    return X, y, StandardScaler(), "digits"


def _draw(X, y, n_samples):
    if n_samples >= len(X):
        return X, y
    X, _, y, _ = train_test_split(X, y, train_size=n_samples, stratify=y, random_state=RANDOM_STATE)
    return X, y


def make_grid():
    """Return the grids of the search, one an optimizer with its learning rate."""
    shared = {f"mlp__{name}": values for name, values in TECHNIQUES.items()}
    return [{**shared, "mlp__optimizer": [optimizer], "mlp__learning_rate_init": [rate]} for optimizer, rate in OPTIMIZERS]


def start_workers(n_jobs):
    """Start the worker processes of the search, deaf to Ctrl-C: the main process hears it and ends them without a word."""
    if n_jobs != 1:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            Parallel(n_jobs)(delayed(int)() for _ in range(2 * effective_n_jobs(n_jobs)))
        finally:
            signal.signal(signal.SIGINT, handler)


def search(X, y, scaler, folds, n_jobs, max_iter):
    """Cross-validate the whole grid.

    Returns
    -------
    candidates : list of dict
        Best first. Labels by technique, and "mean" and "spread" (standard deviation over the folds) of the accuracy, and
        "seconds" of a fit.
    effects : TechniqueEffects
        What each value of each technique does, all else equal.
    """
    classifier = MLPDeepClassifier(
        HIDDEN_LAYER_SIZES,
        batch_size=BATCH_SIZE,
        max_iter=max_iter,
        n_iter_no_change=max_iter,  # all get the same number of epochs
        device="cpu",
        random_state=RANDOM_STATE,
    )
    grid_search = VectorizedGridSearchCV(
        Pipeline([("scaler", scaler), ("mlp", classifier)]),
        make_grid(),
        scoring="accuracy",
        cv=StratifiedKFold(folds, shuffle=True, random_state=RANDOM_STATE),
        n_jobs=n_jobs,
        refit=False,
        error_score="raise",
        progress=True,
    ).fit(X, y)
    results = grid_search.cv_results_
    names = [*TECHNIQUES, "optimizer"]
    candidates = [
        {name: str(parameters[f"mlp__{name}"]) for name in names}
        | {"mean": float(mean), "spread": float(spread), "seconds": float(seconds)}
        for parameters, mean, spread, seconds in zip(
            results["params"], results["mean_test_score"], results["std_test_score"], results["mean_fit_time"], strict=True
        )
    ]
    effects = technique_effects(grid_search, together=[("mlp__optimizer", "mlp__learning_rate_init")])
    return sorted(candidates, key=lambda candidate: -candidate["mean"]), effects


def print_tables(candidates, effects, n_shown=12):
    """Print the ranked candidates, then the techniques one by one."""
    names = [*TECHNIQUES, "optimizer"]
    widths = [max(len(name), *(len(candidate[name]) for candidate in candidates)) + 2 for name in names]
    print(f"{'rank':>4}  {'accuracy':<17}{'fit':>8}  " + "".join(map(str.ljust, names, widths)).rstrip())
    n_last = 3 if len(candidates) > n_shown + 3 else 0
    for i, candidate in enumerate(candidates):
        if n_last and i == n_shown:
            print(f"{'...':>4}  ({len(candidates) - n_shown - n_last} more in the CSV)")
        if i < n_shown or i >= len(candidates) - n_last:
            settings = "".join(candidate[name].ljust(width) for name, width in zip(names, widths, strict=True))
            score = f"{candidate['mean']:.4f} +- {candidate['spread']:.4f}"
            print(f"{i + 1:>4}  {score:<17}{candidate['seconds']:>6.2f} s  {settings.rstrip()}")
    print(
        "\nEach technique over all combinations of the others; change against its first value, all else equal: mean of pairs, "
        f"{effects.confidence:.0%} interval"
    )
    width = max(len(effect.value) for effect in effects) + 2
    print(f"{'technique':<13}{'value':<{width}}{'mean':>8}{'median':>8}{'best':>8}{'change':>9}  {'interval':<20}in pairs")
    for effect in effects:
        technique = effect.parameter.split(", ")[0].removeprefix("mlp__")
        line = f"{technique:<13}{effect.value:<{width}}"
        line += f"{effect.mean_score:>8.4f}{effect.median_score:>8.4f}{effect.best_score:>8.4f}"
        if not effect.is_reference:
            line += f"{effect.effect:>+9.4f}  {f'[{effect.low:+.4f}, {effect.high:+.4f}]':<20}"
            line += f"better in {effect.n_better}, worse in {effect.n_worse} of {effect.n_pairs}"
        print(line)


def write_csv(path, candidates):
    """Write all candidates, best first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "mean_accuracy", "std_accuracy", "fit_seconds", *TECHNIQUES, "optimizer"])
        for i, candidate in enumerate(candidates):
            scores = (f"{candidate[key]:.6f}" for key in ("mean", "spread", "seconds"))
            writer.writerow([i + 1, *scores, *(candidate[name] for name in [*TECHNIQUES, "optimizer"])])


def plot(path, effects, title):
    """Draw what each technique does, a block a technique, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    display = TechniqueComparisonDisplay(effects=effects).plot()
    display.ax_.set_title(title, fontsize=10)
    display.figure_.savefig(path, dpi=150)
    matplotlib.pyplot.close(display.figure_)


def parse_arguments(arguments=None):
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits", help="what to learn (default: digits)")
    parser.add_argument("--n-samples", type=_positive, help="rows to draw (default: 2,000 of MNIST, all 1,797 digits)")
    parser.add_argument("--folds", type=_folds, default=3, help="folds of the cross-validation (default: 3)")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes of the search, -1 for one a core (default: 2)")
    parser.add_argument("--max-iter", type=_positive, default=8, help="epochs of each fit (default: 8)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the figure and the CSV (default: out)")
    return parser.parse_args(arguments)


def _positive(text):
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _folds(text):
    value = int(text)
    if value < 2:
        raise ValueError(text)
    return value


def main(arguments=None):
    """Run the comparison; return 0, or 130 after Ctrl-C."""
    options = parse_arguments(arguments)
    start = time.perf_counter()
    X, y, scaler, data_name = load_data(options.data, options.n_samples)
    n_candidates = len(ParameterGrid(make_grid()))
    layers = "-".join(map(str, [X.shape[1], *HIDDEN_LAYER_SIZES, len(np.unique(y))]))
    title = f"{data_name}: {len(X):,} rows, network {layers}, {options.max_iter} epochs, {options.folds} folds"
    print(f"{title}; {n_candidates} combinations of techniques", flush=True)
    try:
        start_workers(options.n_jobs)
        candidates, effects = search(X, y, scaler, options.folds, options.n_jobs, options.max_iter)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print()
    print_tables(candidates, effects)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"compare_techniques_{data_name.lower()}"
    write_csv(options.out / f"{stem}.csv", candidates)
    plot(options.out / f"{stem}.png", effects, title)
    print(f"\nAll combinations: {options.out / stem}.csv\nFigure: {options.out / stem}.png")
    print(f"{time.perf_counter() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
