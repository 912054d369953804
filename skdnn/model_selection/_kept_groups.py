"""What groups of candidates have learned, kept in a folder, so that a search that was interrupted goes on with the rest."""

import dataclasses
import hashlib
import json
import re
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import safetensors.numpy
import sklearn
import torch

import skdnn
from skdnn.exceptions import InvalidParameterError, ResumeWarning, warn_caller
from skdnn.model_selection._text_of import NoStableTextError, text_of
from skdnn.training import Outcome

_FORMAT = "skdnn: candidates of a search that have been trained together on the rows of a fold"

# What the numbers depend on beside parameters and rows. The number of threads changes their rounding only.
_SOFTWARE = {
    "skdnn": skdnn.__version__,
    "torch": str(torch.__version__),
    "numpy": np.__version__,
    "scikit-learn": sklearn.__version__,
}

# What there is of a network.
_PARTS = "parameters", "statistics"


class _UnreadableError(Exception):
    """A file is not what has been written."""


class KeptGroups:
    """A folder with a JSON file and a safetensors file for each group of candidates and fold.

    The JSON file has the parameters of each candidate, the history of its epochs and how its training ended; the safetensors
    file has the parameters and statistics of the networks. Both are written beside and renamed, the JSON file last: a group
    is there as a whole or not at all, whenever the process ends; all that may be left of it is a file that ends with ``.part``.
    Both are checked by hashes when they are read.

    What is found is decided by parameters, rows, software and kind of device. Candidates whose `random_state` is None are
    never kept.

    Parameters
    ----------
    folder : str or Path
        Made where it is not there.

    Raises
    ------
    InvalidParameterError
        The folder cannot be made, or not be written to.

    Warns
    -----
    ResumeWarning
        For each JSON file in the folder that cannot be used.
    """

    def __init__(self, folder):
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()
            paths = sorted(self._folder.glob("*.json"))
        except OSError as error:
            raise InvalidParameterError(f"resume_from={str(folder)!r} cannot be written to: {error}") from error
        self._places = {}  # the file and the number in it of each candidate on the rows of a fold
        for path in paths:
            try:
                for k, candidate in enumerate(_read_json(path)["candidates"]):
                    self._places.setdefault(_hash_of(candidate["of"]), (path, k))
            except _UnreadableError as error:
                warn_caller(f"{path} is not used: {error}. What it may have had is trained again.", ResumeWarning)

    def check(self, estimators):
        """Warn once if some of the estimators cannot be kept.

        Parameters
        ----------
        estimators : iterable of estimator
        """
        for estimator in estimators:
            try:
                if estimator.random_state is not None:
                    text_of(estimator)
                    continue
                reason = "random_state=None makes each of its fits a draw of its own. Set a number"
            except NoStableTextError as error:
                reason = f"another process could not know it again ({error})"
            warn_caller(
                f"resume_from keeps nothing of {estimator!r}, and perhaps of other candidates: {reason}.", ResumeWarning
            )
            return

    def complete(self, group, rows, train):
        """Take from the folder what it has of a group, train the rest and keep that.

        Parameters
        ----------
        group : list of (object, estimator, TrainingRun)
            Candidates that are prepared, whatever they are called.
        rows : str
            A hash of the rows that they are trained on.
        train : callable
            From such a list to one of those that have been trained, as they are called, and their fitted estimators.

        Returns
        -------
        fitted : list of (object, estimator)
        """
        # Before training, which releases what they are made from.
        identities = {j: _identify(estimator, net.session.plan.device, rows) for j, estimator, net in group}
        fitted, rest, opened = [], [], {}
        for j, estimator, net in group:
            if self._restore(estimator, net, identities[j], opened):
                fitted.append((j, estimator))
            else:
                rest.append((j, estimator, net))
        if rest:
            start = time.perf_counter()
            trained = train(rest)
            runs = {j: run for j, _, run in rest}
            self._keep([(identities[j], estimator, runs[j].outcome_) for j, estimator in trained], time.perf_counter() - start)
            fitted += trained
        return fitted

    def _restore(self, estimator, net, identity, opened):
        """Give a candidate what has been kept of it, and say whether there was anything."""
        path, k = self._places.get(_hash_of(identity), (None, None))
        if path is None:
            return False
        try:
            if path not in opened:
                content = _read_json(path)
                opened[path] = content, _read_tensors(path.with_suffix(".safetensors"), content["sha256_of_tensors"])
        except _UnreadableError as error:  # for files may be changed at any time
            warn_caller(f"{path} is not used: {error}. What it has is trained again.", ResumeWarning)
            return False
        content, tensors = opened[path]
        candidate, session = content["candidates"][k], net.session
        snapshot = [torch.from_numpy(tensors[f"{k}.{part}"]) for part in _PARTS]
        net.take_over(snapshot, _to_rows(candidate["history"]), Outcome(**candidate["outcome"]))
        estimator._store(net, session, continues=False, is_stream=False)
        return True

    def _keep(self, trained, seconds):
        """Write what candidates have learned together."""
        trained = [kept for kept in trained if kept[0] is not None]
        if not trained:
            return
        name = _hash_of([identity for identity, *_ in trained])[:20]
        tensors, candidates = {}, []
        for k, (identity, estimator, outcome) in enumerate(trained):
            for part, tensor in zip(_PARTS, estimator._network.snapshot(), strict=True):
                tensors[f"{k}.{part}"] = tensor.cpu().numpy()
            outcome = dataclasses.asdict(outcome)
            candidates.append({"of": identity, "outcome": outcome, "history": _to_columns(estimator.history_)})
        weights = safetensors.numpy.save(tensors)
        content = {"format": _FORMAT, "seconds": seconds, "sha256_of_tensors": _digest(weights), "candidates": candidates}
        try:
            # The tensors first: a JSON file speaks of what is there.
            self._write(f"{name}.safetensors", weights)
            self._write(f"{name}.json", _format(content).encode())
        except OSError as error:
            warn_caller(f"{len(trained)} candidates could not be kept in {self._folder}: {error}.", ResumeWarning)

    def _write(self, name, content):
        """Write a file that is there as a whole or not at all."""
        part = self._folder / f"{name}.{uuid.uuid4().hex}.part"
        try:
            part.write_bytes(content)
            part.replace(self._folder / name)
        finally:
            part.unlink(missing_ok=True)


def _identify(estimator, device, rows):
    """Return all that decides what an estimator learns, or None where that is not the same twice."""
    if estimator.random_state is None:
        return None
    try:
        parameters = {name: text_of(value) for name, value in estimator.get_params(deep=False).items()}
        return {
            "estimator": text_of(type(estimator)),
            "parameters": parameters,
            "rows": rows,
            "device": device.type,
            "software": _SOFTWARE,
        }
    except NoStableTextError:
        return None


def _to_columns(history):
    """Write rows by their figures; the last row may have fewer than the others."""
    names = [name for name in history[0] if name != "batches"]
    return {name: [row[name] for row in history if name in row] for name in names}


def _to_rows(columns):
    """Return what `_to_columns` was given."""
    n_rows = max(map(len, columns.values()))
    return [{"batches": []} | {name: column[i] for name, column in columns.items() if i < len(column)} for i in range(n_rows)]


def _format(content):
    """Write JSON that people can read: what is nested is indented, and numbers of a list are on one line."""
    text = json.dumps({"sha256": _hash_of(content)} | content, indent=2)
    return re.sub(r"\[\n\s*([^][{}]*?)\n\s*\]", lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


def _read_json(path):
    """Return the content of a JSON file of a group, once it is known to be what was written."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _UnreadableError(f"it cannot be read ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise _UnreadableError("it is not of a search")
    if content.pop("sha256", None) != _hash_of(content):
        raise _UnreadableError("it has been changed since it was written")
    return content


def _read_tensors(path, digest):
    """Return the arrays of a safetensors file, once it is known to be what was written."""
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise _UnreadableError(f"{path.name} cannot be read ({error})") from error
    if _digest(weights) != digest:
        raise _UnreadableError(f"{path.name} has been changed since it was written")
    return safetensors.numpy.load(weights)


def _hash_of(content):
    """A key of what JSON can hold."""
    return _digest(json.dumps(content, sort_keys=True).encode())


def _digest(content):
    return hashlib.sha256(content).hexdigest()
