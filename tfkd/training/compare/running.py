"""The runs of a comparison, one after the other, and the files that say what came of them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import tensorflow as tf

from tfkd import evaluation, export, files
from tfkd.core import NonFiniteLoss, Task, tasks
from tfkd.errors import TfkdError, reason
from tfkd.models.saving import load_network
from tfkd.settings import checked
from tfkd.training import build, config_checks, inputs, teachers
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training.compare import curves, exit_curves
from tfkd.training.compare.plan import ALONE, DISTILLED, TEACHER, Role, roles, tell_recipes
from tfkd.training.compare.summary import Outcome, as_csv, summarize
from tfkd.training.config_sections import Seed
from tfkd.training.experiment import Experiment
from tfkd.training.run import run
from tfkd.training.run_folder import RunFolder


def compare(
    experiments: Mapping[str, ml_collections.ConfigDict] | ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    seeds: Sequence[int],
    strategy: tf.distribute.Strategy | str = "auto",
    base: ml_collections.ConfigDict | None = None,
) -> dict[str, Any]:
    """Trains every role with every seed; writes ``summary.json``, ``summary.csv``, ``curves.png``.

    Where students have several exits, ``early_exit.png`` shows their accuracy over cost. Finished
    runs are not repeated, and an interrupted one goes on. The files hold what is known after each
    seed. With ``export.enabled`` the student of the first experiment and seed is exported to
    ``export/`` in the folder.

    A run that fails has a row that says why, and so have the runs whose teacher it would have
    trained; all others go on. The same call tries it again. Where several workers train together,
    only a loss that is not finite is such a failure: anything else may have happened to one worker
    while the others wait for it.

    Args:
        experiments: Distillation experiments by role, or one, whose role is ``distilled``; see
            :func:`tfkd.training.compare.roles`.
        workdir: Folder of the comparison.
        seeds: Seeds, at least one, each once.
        strategy: See :func:`tfkd.training.run`.
        base: The config whose ``train`` section is the recipe of ``alone``; by default that of most
            experiments.

    Returns:
        The content of ``summary.json``; empty on workers that write nothing. ``rows`` has a dict
        for each run: ``role``, ``seed``, ``score`` (of the student of the last epoch on the test
        images) and every other number of the task by its name, ``exits`` and ``variants`` with
        numbers of their own, ``agreement`` with the teacher, ``params``, ``macs``, ``seconds`` and
        ``error``, which is ``None`` for a finished run. ``columns`` says what the numbers are.

    Raises:
        TfkdError: For a wrong config or folder, before anything is trained.
    """
    repeated = next((seed for seed in seeds if list(seeds).count(seed) > 1), None)
    if not seeds or repeated is not None:
        found = "no seeds" if repeated is None else f"seed {repeated} more than once"
        raise TfkdError(f"compare: found {found}, wanted one or more, each once")
    if isinstance(experiments, ml_collections.ConfigDict):
        experiments = {DISTILLED: experiments}
    for seed in seeds:
        checked("compare: seed", Seed, seed)
    workdir = Path(workdir)
    if isinstance(strategy, str):
        strategy = strategies.create(strategy)
    for config in experiments.values():
        config_checks.validate(config)
    tell_recipes(experiments, base)
    first, config = next(iter(experiments.items()))
    silent = {
        role: configs.override(each, export__enabled=False) for role, each in experiments.items()
    }
    plans = {seed: roles(silent, seed, workdir, base) for seed in seeds}
    _check_before(plans, strategy)
    files.refuse_links(workdir, ["export"])
    if strategies.is_chief(strategy):
        files.clear_leftovers(workdir)
    runs = _Runs(config, workdir, strategy)
    for seed, planned in plans.items():
        for name in planned:
            runs.attempt(name, seed, planned)
        if runs.writes:
            runs.write()
    if runs.writes and config.export.enabled:
        runs.export(first, seeds[0])
    # Nobody has anything left to do: what went wrong elsewhere is told there.
    strategies.part(strategy, lambda: True)
    return runs.summary


def _check_before(
    plans: Mapping[int, Mapping[str, Role]], strategy: tf.distribute.Strategy
) -> None:
    """Looks at what all runs share, and at every folder, before the first of them.

    What is wrong with a single method is left to its run.

    Raises:
        TfkdError: When something is wrong.
    """
    for planned in plans.values():
        for role in planned.values():
            folder = RunFolder(role.folder)
            folder.check(configs.to_dict(role.config))
            inputs.check_before(role.config, folder)
    for name, role in next(iter(plans.values())).items():
        if name in (TEACHER, ALONE) and RunFolder(role.folder).result() is None:
            config_checks.validate(role.config)
            train = role.config.train
            strategies.check(strategy, train.batch_size, train.jit_compile)
            Experiment.of(role.config).check(role.folder)


class _Runs:
    """The runs of a comparison so far.

    Args:
        config: The first experiment.
        workdir: Folder of the comparison.
        strategy: The strategy.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: Path, strategy: tf.distribute.Strategy
    ) -> None:
        self.summary: dict[str, Any] = {}
        self.writes = strategies.is_chief(strategy)
        self._config = config
        self._workdir = workdir
        self._strategy = strategy
        self._caught = Exception if strategies.is_single(strategy) else NonFiniteLoss
        self._outcomes: list[Outcome] = []
        self._failed: dict[Path, str] = {}

    def attempt(self, name: str, seed: int, planned: Mapping[str, Role]) -> None:
        """Runs a role, unless its own folder or that of its teacher is known to fail."""
        config, folder, taught_by = planned[name]
        print(f"\n{name}, seed {seed}: {folder}", flush=True)
        error = self._failed.get(folder)
        if taught_by and planned[taught_by].folder in self._failed:
            error = f"{taught_by} failed"
        result = None
        if error is None:
            try:
                result = run(config, folder, self._strategy)
            # A method of the user's can fail in any way, and one in thirty must not end the others.
            except self._caught as caught:
                error = reason(caught)
                if not isinstance(caught, TfkdError):
                    traceback.print_exc(file=sys.stderr)
                    error = f"{type(caught).__name__}: {error}"
        if error is not None:
            print(f"{folder} failed: {error}", flush=True)
            self._failed[folder] = error
        agreement = self._agreement(name, planned, result) if result else None
        self._outcomes.append(Outcome(name, seed, folder, result, agreement, error))

    def _agreement(
        self, name: str, planned: Mapping[str, Role], result: Mapping[str, Any]
    ) -> float | None:
        """Returns how often a student agrees with the common teacher on the test images."""
        teacher, role = planned.get(TEACHER), planned[name]
        if teacher is None or name == TEACHER or teacher.folder in self._failed:
            return None
        if role.taught_by == TEACHER:
            return result["agreement"]
        student, fields = load_network(role.folder), role.config.teacher
        dataset = build.data_set(role.config)
        common = teachers.with_classes_of(
            load_network(teacher.folder, fields.which),
            dataset.info,
            student.task,
            fields,
            TEACHER,
            tell=False,
        )
        subjects = {
            name: evaluation.predictor(student),
            TEACHER: evaluation.predictor(common),
        }
        task = tasks.create(student.task, student)
        found = evaluation.evaluate(subjects, dataset.test(), task)
        return found.agreement(name, TEACHER) if found.agreements else None

    def write(self) -> None:
        """Writes the numbers so far and their picture."""
        name = self._config.experiment or self._config.student.name
        self.summary = summarize(name, self._outcomes, self._task())
        folder = RunFolder(self._workdir)
        with files.writing(f"folder {str(folder.path)!r}", "a folder with write permission"):
            folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_json("summary.json", self.summary)
        folder.write_text("summary.csv", as_csv(self.summary))
        finished = self._finished()
        curves.draw(self.summary, finished, self._workdir / "curves.png")
        exit_curves.draw(self.summary, finished, self._workdir / "early_exit.png")

    def _finished(self) -> dict[str, list[Path]]:
        """Returns the folders of the finished runs by role."""
        folders: dict[str, list[Path]] = {}
        for each in self._outcomes:
            if each.result:
                folders.setdefault(each.role, []).append(each.folder)
        return folders

    def _task(self) -> Task | None:
        """Returns the task of the students; ``None`` where no run is finished."""
        finished = [each for each in self._outcomes if each.result]
        # A teacher may have another one: its network has a single exit, say.
        students = [each for each in finished if each.role != TEACHER] or finished
        if not students:
            return None
        network = load_network(students[0].folder)
        return tasks.create(network.task, network)

    def export(self, role: str, seed: int) -> None:
        """Exports the student of a run, if it is finished."""
        folder = self._workdir / role / f"seed{seed}"
        if folder in self._failed:
            print(f"\nnot exported: {role}, seed {seed} failed", flush=True)
            return
        settings = configs.to_dict(self._config.export)
        path = export.save_run(folder, self._workdir / "export", **settings)
        print(f"\nexported the student of {role}, seed {seed}, to {path}", flush=True)
