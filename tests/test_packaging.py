"""The files around the library: pinned requirements, pyproject, Makefile and Bazel targets."""

import ast
import importlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

import tfkd

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOOLS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("tools/*.py")
    if path.name != "__init__.py"
)
TESTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/test_*.py"))


def pins():
    """The requirements as name -> version."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stripped = [line.split("#")[0].strip() for line in lines]
    return dict(line.split("==") for line in stripped if line)


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def split(requirement):
    """``"name[extra]==version"`` or ``"name>=lowest,<=version"`` as name and version."""
    found = re.fullmatch(r"([\w-]+)(?:\[[\w-]+\])?(?:==|>=[\w.]+,<=)([\w.]+)", requirement)
    assert found, f"{requirement} does not end at a version that is tested"
    return found.groups()


@pytest.mark.parametrize("name, version", pins().items())
def test_pinned_requirement_is_installed(name, version):
    names = [name, "tensorflow-cpu"] if name == "tensorflow" else [name]
    found = []
    for each in names:
        try:
            found.append(importlib.metadata.version(each))
        except importlib.metadata.PackageNotFoundError:
            continue
    assert found == [version]


@pytest.mark.parametrize("name", ["tensorboard.plugins.hparams.api", "importlib_resources"])
def test_undeclared_dependencies_are_importable(name):
    importlib.import_module(name)


def test_no_private_module_of_keras_is_imported():
    imported = set()
    for folder in ("tfkd", "tests", "tools", "configs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {each.name for each in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported |= {f"{node.module}.{each.name}" for each in node.names}
    assert "keras" in imported
    assert not [name for name in imported if f"{name}.".startswith("keras.src.")]


def test_pyproject_goes_up_to_the_pins():
    project, wanted = pyproject()["project"], pins()
    extras = project["optional-dependencies"]
    version = wanted.pop("tensorflow")
    assert extras["cpu"] == [f"tensorflow-cpu=={version}"]
    assert extras["gpu"] == [f"tensorflow[and-cuda]=={version}"]
    assert dict(map(split, project["dependencies"] + extras["test"])) == wanted


def test_every_module_of_the_library_is_in_a_package():
    for path in (ROOT / "tfkd").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that ``pip install`` fills from a copy of the repository."""
    folder = tmp_path_factory.mktemp("installed")
    source, target = folder / "source", folder / "target"
    for name in ("tfkd", "configs", "tools", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--disable-pip-version-check",
            "--quiet",
            "--target",
            target,
            source,
        ],
        check=True,
    )
    return target


def call(installed, *words, cwd, path=()):
    """What the installed command prints, with further folders before all others on the path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, installed]))}
    return subprocess.run(
        [installed / "bin" / "tfkd", *words],
        cwd=cwd,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_pip_install_brings_library_binaries_and_configs_under_names_of_their_own(installed):
    (about,) = installed.glob("tfkd-*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"tfkd", "tfkd_tools", "bin", about.name}
    places = {"tfkd": "tfkd", "tools": "tfkd_tools", "configs": "tfkd/configs"}
    wanted = {
        pathlib.Path(place, path.relative_to(ROOT / name))
        for name, place in places.items()
        for path in (ROOT / name).rglob("*.py")
    }
    assert wanted == {path.relative_to(installed) for path in installed.rglob("*.py")}
    metadata = importlib.metadata.PathDistribution(about).metadata
    assert metadata["Version"] == tfkd.__version__
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_help_of_the_installed_command_needs_no_tensorflow(installed, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    listed = call(installed, "--help", cwd=tmp_path, path=[tmp_path])
    for path in TOOLS:
        name = pathlib.Path(path).stem
        if name == "results" or "entry.run(main" not in (ROOT / path).read_text(encoding="utf-8"):
            continue  # Tables of the repository's own pages; what is no binary.
        assert re.search(rf"^  {name} +[A-Z].*\.$", listed, flags=re.M), name
        told = call(installed, name, "--help", cwd=tmp_path, path=[tmp_path])
        assert "\nFlags:\n  --" in told
        assert "python tools/" not in told


def test_the_installed_command_trains_a_shipped_config_by_its_name(installed, tmp_path):
    said = call(
        installed, "train", "--config=quickstart:alone,smoke", "--workdir=run", cwd=tmp_path
    )
    assert "student resnet8: 2,646 parameters" in said
    assert (tmp_path / "run" / "student.keras").is_file()


def make(*arguments):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # What an outer make hands down, flags and variables, is not for this one.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "VENV", "PYTHON")
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_make_env_without_a_suitable_python_says_what_it_wants(python, tmp_path):
    found = make("env", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert found.returncode == 2
    message = found.stderr.splitlines()[0]
    assert f"found no suitable Python ({python})" in message
    assert "wanted 3.11, 3.12 or 3.13" in message
    assert not (tmp_path / "venv").exists()


def test_make_env_does_nothing_until_the_requirements_change(tmp_path):
    stamp = tmp_path / "installed"
    stamp.touch()
    newest = (ROOT / "requirements.txt").stat().st_mtime
    for age, outdated in ((1, False), (-1, True)):
        os.utime(stamp, (newest + age, newest + age))
        found = make("--dry-run", "env", f"VENV={tmp_path}")
        assert found.returncode == 0, found.stderr
        assert ("pip install" in found.stdout) == outdated


def test_make_runs_the_demo_and_the_suite_in_the_environment(tmp_path):
    stamp = tmp_path / "installed"
    stamp.touch()
    os.utime(stamp, (2**32, 2**32))
    lines = make("--dry-run", "demo", "test", f"VENV={tmp_path}").stdout.splitlines()
    assert lines == [
        f"{tmp_path}/bin/python tools/compare.py --config=configs/quickstart.py "
        "--workdir=runs/quickstart",
        f"{tmp_path}/bin/python -m pytest -q --numprocesses=3 --dist=loadfile "
        "--no-loadscope-reorder --durations=15 tests",
    ]


def test_ci_is_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[1:] == ["exec make lint test"]


def build_targets():
    """The rules of BUILD as (kind, attributes), BUILD being read as the Python that it also is."""
    targets = []

    def rule(kind):
        return lambda **attributes: targets.append((kind, attributes))

    def glob(patterns, exclude=()):
        paths = {
            path.relative_to(ROOT).as_posix()
            for pattern in patterns
            for path in ROOT.glob(pattern)
            if path.is_file()
        }
        return sorted(paths - set(exclude))

    kinds = ("filegroup", "py_binary", "py_library", "py_test")
    names = {kind: rule(kind) for kind in kinds}
    exec(
        (ROOT / "BUILD").read_text(encoding="utf-8"),  # pylint: disable=exec-used
        {**names, "glob": glob, "package": lambda **attributes: None},
    )
    return targets


def test_build_names_the_library_every_tool_and_every_test():
    targets = build_targets()
    names = [attributes["name"] for _, attributes in targets]
    assert len(set(names)) == len(names)
    mains = {
        kind: {attributes["name"]: attributes for each, attributes in targets if each == kind}
        for kind in ("py_binary", "py_test", "py_library")
    }
    assert mains["py_library"]["tfkd"]["srcs"] == sorted(
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("tfkd/**/*.py")
    )
    assert {name: each["main"] for name, each in mains["py_binary"].items()} == {
        pathlib.Path(path).stem: path for path in TOOLS
    }
    assert {name: each["args"] for name, each in mains["py_test"].items()} == {
        path.removesuffix(".py"): [path] for path in TESTS
    }
    for attributes in [*mains["py_binary"].values(), *mains["py_test"].values()]:
        assert attributes["main"] in attributes["srcs"]


@pytest.fixture
def bazel(tmp_path):
    """Runs Bazel in a copy of the repository beside a .venv and runs that it must not look into."""
    program = shutil.which("bazel")
    if program is None:
        pytest.skip("bazel is not installed (Debian: apt-get install bazel-bootstrap)")
    version = subprocess.run(
        [program, "--version"], capture_output=True, text=True, cwd=tmp_path, check=False
    ).stdout.strip()
    if version != "bazel no_version" and not version.startswith("bazel 4."):
        pytest.skip(f"found {version!r}; BUILD is for Bazel 4 (Debian: bazel-bootstrap)")
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "runs", "build", "bazel-*", "__pycache__", "*.egg-info", ".*_cache"
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    for folder in (".venv/lib/tensorflow", "runs/quickstart"):
        (copy / folder).mkdir(parents=True)
        (copy / folder / "BUILD.bazel").write_text("load('@nowhere//:rules.bzl', 'rule')\n")

    def run(*arguments):
        found = subprocess.run(
            [
                program,
                "--batch",
                "--nohome_rc",
                "--noworkspace_rc",
                f"--output_user_root={tmp_path / 'bazel'}",
                *arguments,
            ],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout.split()

    yield run
    # Bazel leaves folders without write permission, which would keep tmp_path from being removed.
    for path in (tmp_path / "bazel").rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def test_bazel_finds_every_target_beside_an_environment(bazel):
    targets = set(bazel("query", "//..."))
    wanted = {
        "tfkd",
        "configs",
        *(pathlib.Path(path).stem for path in TOOLS),
        *(path.removesuffix(".py") for path in TESTS),
    }
    assert {f"//:{name}" for name in wanted} <= targets


def test_bazel_builds_everything_without_downloads(bazel):
    bazel("build", "//...", "--symlink_prefix=/")
