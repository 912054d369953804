"""How far a search is: a bar over candidates, folds and epochs."""


class Progress:
    """Told how far a search is, and says nothing; a context manager around it."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def advance(self, n_epochs):
        """Note that so many epochs have been run, or need not be."""

    def fit_begins(self, n_epochs):
        """Note that the fits before are over, and that one of so many epochs at most begins, 0 where it is trained already."""

    def follow(self, lanes):
        """Return a function that is told, once an epoch, which of the lanes are still in training."""
        return lambda running: None


class ProgressBar(Progress):
    """A bar on standard error, or a widget in a notebook, with the time that is left.

    Networks that stop early count as if they had run all their epochs, and so do those that need not be trained.

    Parameters
    ----------
    n_epochs : int
        Of all candidates on all folds, at most.
    """

    def __init__(self, n_epochs):
        self._n_epochs = n_epochs

    def __enter__(self):
        from tqdm.auto import tqdm  # looks for a notebook when it is imported, which few searches need

        self._bar, self._alone = tqdm(total=self._n_epochs, unit="epoch"), 0
        return self

    def __exit__(self, kind, *error):
        if kind is None:
            self.advance(self._n_epochs)
        self._bar.close()

    def advance(self, n_epochs):
        # Candidates that are fitted alone after all, and estimators within others, were not expected.
        self._bar.update(min(n_epochs, self._n_epochs - self._bar.n))

    def fit_begins(self, n_epochs):
        self.advance(self._alone)
        self._alone = n_epochs

    def follow(self, lanes):
        done = 0

        def note(running):
            nonlocal done
            before, done = done, sum(lane.n_epochs if lane in running else lane.plan.max_iter for lane in lanes)
            self.advance(done - before)

        return note
