"""RESULTS.md: its tables are those of its files, and its commands make the recorded experiments."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from tfkd import benchmarks, reporting
from tfkd.distillers.uskd import BEFORE_LAST
from tfkd.training import compare, config_checks
from tfkd.training import config as configs
from tfkd.training.run_folder import comparable

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "RESULTS.md"
TEXT = PAGE.read_text(encoding="utf-8")


def commands(tool):
    """Returns the commands of the page that call a binary, each as a list of words."""
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [words for words in map(shlex.split, lines) if words[:2] == ["python", tool]]


def comparison_folders():
    words = [table.words.split() for table in reporting.tables(PAGE)]
    return [folder for kind, folder, *_ in words if kind == "comparison"]


@contextlib.contextmanager
def parsed(words, monkeypatch):
    """Yields what a binary gets to see of its command line: flags and arguments."""
    # tools/benchmark.py turns it on where it is not set.
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"))
    # ml_collections looks there for the fields that a command changes.
    monkeypatch.setattr(sys, "argv", words[1:])
    tool = ROOT / words[1]
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(f"binary_{tool.stem}", tool)
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        yield flags.FLAGS, flags.FLAGS(sys.argv)[1:]
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)


def experiments_of(found):
    """Returns the experiments of a call of tools/compare.py by role."""
    if not found.methods:
        return {compare.DISTILLED: found.config}
    flag = found["config"]
    return compare.of_methods(
        config_flags.get_config_filename(flag),
        found.methods,
        config_flags.get_override_values(flag),
    )


def recorded(folder):
    """Returns the config of each role and seed as the version that made it wrote it."""
    paths = (ROOT / folder).glob("*/seed*/config.json")
    return {path.parent.relative_to(ROOT / folder): json.loads(path.read_text()) for path in paths}


def same_in_both_versions(config):
    """Returns a plain config without the names of experiments and of features.

    Those that are read by default have been called otherwise before, and are the same ones in the
    networks of the recorded runs.
    """
    plain = comparable(config)
    plain.pop("experiment")
    uskd = plain["methods"].get("uskd", {})
    if uskd.get("feature") == BEFORE_LAST:
        uskd["feature"] = "stage2"  # Of three stages, which ResNets for small images have.
    for tap, each in plain["methods"].get("sp", {}).items():
        if each == "pre_pool":  # The end of the last stage of ResNets and VGGs.
            plain["methods"]["sp"][tap] = None
    return plain


def test_every_table_is_that_of_its_files():
    found = reporting.tables(PAGE)
    differ = [f"line {table.line}: {table.words}" for table in found if not table.holds]
    assert found
    assert not differ, f"{differ}; python tools/results.py writes them"


def test_no_table_is_written_by_hand():
    text = TEXT
    for table in reporting.tables(PAGE):
        text = text.replace(table.written, "")
    assert "|---" not in text


def test_every_folder_of_results_is_shown():
    shown = {table.words.split()[1] for table in reporting.tables(PAGE)}
    folders = [path for path in (ROOT / "results").iterdir() if path.is_dir()]
    assert shown == {f"results/{path.name}" for path in folders}


def test_every_benchmark_file_is_shown():
    words = " ".join(table.words for table in reporting.tables(PAGE))
    shown = set(re.findall(r"\w+", words))
    assert {path.stem for path in (ROOT / "results" / "benchmarks").glob("*.json")} <= shown


@pytest.mark.parametrize("page", [PAGE, ROOT / "results" / "README.md"], ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    relative = [link for link in links if not link.startswith("http")]
    assert relative
    assert not [link for link in relative if not (page.parent / link).exists()]


@pytest.mark.parametrize(
    ("words", "folder"),
    list(zip(commands("tools/compare.py"), comparison_folders(), strict=True)),
    ids=comparison_folders(),
)
def test_command_makes_the_recorded_experiments(words, folder, monkeypatch):
    with parsed(words, monkeypatch) as (found, arguments):
        assert not arguments
        experiments = experiments_of(found)
        workdir = Path(found.workdir)
        seeds = [int(seed) for seed in found.seeds or found.config.compare.seeds]
    for config in experiments.values():
        config_checks.validate(config)
    experiments = {
        role: configs.override(config, export__enabled=False)
        for role, config in experiments.items()
    }
    planned = {
        path.relative_to(workdir): config
        for seed in seeds
        for config, path, *_ in compare.roles(experiments, seed, workdir).values()
    }
    made = recorded(folder)
    assert set(planned) == set(made)
    for run, config in planned.items():
        then, now = same_in_both_versions(made[run]), same_in_both_versions(configs.to_dict(config))
        assert configs.differences(then, now) == []


@pytest.mark.parametrize("words", commands("tools/benchmark.py"), ids=" ".join)
def test_command_measures_known_groups(words, monkeypatch):
    with parsed(words, monkeypatch) as (found, groups):
        assert found.rounds > 0
    assert groups and set(groups) <= set(benchmarks.names())


def test_every_command_is_one_of_these():
    calls = re.findall(r"^python (\S+)", TEXT, flags=re.MULTILINE)
    assert calls
    assert set(calls) == {"tools/compare.py", "tools/benchmark.py"}
