"""Listeners to the epochs of a run, and those of them that show its progress."""


class EpochListener:
    """Told of every epoch after skorch's callbacks were; a context manager that is entered and left with the run."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def epoch_begins(self, net):
        """Note that an epoch begins."""

    def epoch_ends(self, net):
        """Note that an epoch is over, and say whether training is to stop."""
        return False


class ProgressBar(EpochListener):
    """A bar over the epochs on standard error, or a widget in a notebook, with the last epoch's figures beside it.

    Parameters
    ----------
    n_epochs : int
        Epochs at most.
    """

    _FIGURES = ("train_loss", "valid_loss", "valid_score")

    def __init__(self, n_epochs):
        self._n_epochs = n_epochs

    def __enter__(self):
        from tqdm.auto import tqdm  # looks for a notebook when it is imported, which few fits need

        self._bar = tqdm(total=self._n_epochs, unit="epoch")
        return self

    def __exit__(self, *error):
        self._bar.close()

    def epoch_ends(self, net):
        row = net.history[-1]
        self._bar.set_postfix({name: f"{row[name]:.4g}" for name in self._FIGURES if name in row}, refresh=False)
        self._bar.update()
        return False


class EpochLines(EpochListener):
    """A line an epoch on standard output."""

    def epoch_ends(self, net):
        row = net.history[-1]
        line = f"Epoch {row['epoch']}: loss = {row['train_loss']:.6f}"
        if "valid_score" in row:
            line += f", validation loss = {row['valid_loss']:.6f}, validation score = {row['valid_score']:.4f}"
        print(line)
        return False


def progress_listeners(verbose, n_epochs):
    """Return the listeners that `verbose` asks for: none at 0, a bar at 1, lines from 2 on."""
    if not verbose:
        return []
    return [ProgressBar(n_epochs)] if verbose == 1 else [EpochLines()]
