"""The pages of documentation: code runs as printed, and names, links and claims hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import tfkd
from tests.caffe import files as caffe_files
from tests.caffe import nets
from tests.fixtures import pages
from tfkd.models.saving import load_network
from tfkd.training import config as configs
from tfkd.training import published

ROOT = pages.ROOT
TRAINING = ("docs/architecture.md", "docs/early_exit.md")
WITH_PYTHON = [
    pytest.param(page, marks=[pytest.mark.slow] if page in TRAINING else [])
    for page in pages.PAGES
    if pages.blocks(page, "python") and page != "README.md"
]
SECTIONS = ("data", "student", "teacher", "train", "export", "compare")


def prepare_caffe(folder):
    make = nets.Maker(0)
    make.image(3, 8, 8)
    make.convolution("stage/conv", "data", (4, 3, 3, 3), kernel_size=3)
    make.linear("fc", "stage/conv", 10, 4 * 36)
    make.add("Softmax", "prob", "fc")
    (folder / "deploy.prototxt").write_text(caffe_files.prototxt(make.layers))
    (folder / "net.caffemodel").write_bytes(caffe_files.weights(make.layers))


def check_caffe(names, folder):
    assert names["logits"].shape == (2, 10)
    assert names["features"].output["stage/conv"].shape == (None, 6, 6, 4)
    assert isinstance(names["distiller"], tfkd.Distiller)


def check_usage(names, folder):
    assert configs.objectives(names["get_config"]())[0].temperature == 4.0
    assert (folder / "small.keras").is_file()


def check_architecture(names, folder):
    student = json.loads((folder / "runs/student/result.json").read_text())
    assert student["methods"] == ["kd", "regression", "similarity"]
    assert [each["name"] for each in student["exits"]] == ["exit1", "logits"]
    attributes = json.loads((folder / "runs/attributes/result.json").read_text())
    # The scale of logits changes no sign, so that the variant is right where the student is.
    assert attributes["variants"]["scaled"]["right"] == attributes["right_last"] > 0
    described = json.loads((folder / "runs/attributes/network.json").read_text())
    assert described["files"]["scaled"] == "student_scaled.keras"
    assert load_network(folder / "runs/attributes", "scaled").task == "attributes"


def check_contributing(names, folder):
    printed = re.search(r"print\(error\)  # (.*)", pages.text("CONTRIBUTING.md"))[1]
    with pytest.raises(tfkd.TfkdError) as error:
        names["pick"]("sun")
    assert str(error.value) == printed


def check_early_exit(names, folder):
    early = json.loads((folder / "runs/msdnet/early_exit.json").read_text())["last"]
    assert early["macs"][0] < 400_000 < early["macs"][-1]
    assert names["early"]["exit"].shape == names["pixels"].shape[:1]
    assert set(names["early"]["exit"].numpy()) <= {1, 2, 3}
    # The commands of the page as they are printed, on the run and on its export.
    run, exported = (
        evaluated(words, folder)["early_exit"]
        for words in pages.commands("docs/early_exit.md")
        if words[1] == "tools/evaluate.py"
    )
    assert run["budget"] == 400_000 >= run["validation_macs"]
    speeds = [exported.pop(f"images_per_second{of}") for of in ("", "_of_all")]
    assert min(speeds) > 0
    assert exported == pytest.approx(run, rel=0.01)


def evaluated(words, folder):
    """Runs a command of a page and returns the numbers that it writes."""
    command = [sys.executable, str(ROOT / words[1]), *words[2:], "--json=scores.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "scores.json").read_text())


PREPARATIONS = {"docs/caffe.md": prepare_caffe}
"""What a page takes to be there already."""

CHECKS = {
    "docs/caffe.md": check_caffe,
    "docs/usage.md": check_usage,
    "docs/architecture.md": check_architecture,
    "docs/early_exit.md": check_early_exit,
    "CONTRIBUTING.md": check_contributing,
}


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_of_a_page_runs_as_printed(page, tmp_path):
    PREPARATIONS.get(page, lambda folder: None)(tmp_path)
    with pages.registries_restored():
        names = pages.run_blocks(page, pages.blocks(page, "python"), tmp_path)
        CHECKS[page](names, tmp_path)


@pytest.mark.parametrize("page", pages.PAGES)
def test_lines_of_python_fit_the_code_width(page):
    wide = [
        line
        for block in pages.blocks(page, "python")
        for line in block.splitlines()
        if len(line) > 100
    ]
    assert not wide


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", pages.text(page))
    missing = [
        link
        for link in links
        if not link.startswith("http") and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert not missing


def test_the_readme_links_every_page():
    links = re.findall(r"\]\(([^)#]+)\)", pages.text("README.md"))
    assert set(pages.PAGES) - {"README.md"} <= set(links)


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_path_that_a_page_names_exists(page):
    named = [
        code.partition(":")[0]
        for code in pages.inline_code(page)
        if re.fullmatch(r"(tfkd|configs|tools|tests|results)/[\w./]*(:\S*)?", code)
    ]
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


def flags_of(binary: Path) -> set[str]:
    """Returns the flags that a binary defines, those of devices included."""
    source = binary.read_text()
    if "device_flags.define()" in source:
        source += (ROOT / "tools/device_flags.py").read_text()
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))


PYTHON_COMMANDS = [
    pytest.param(words, id=f"{page}-{number}")
    for page in pages.PAGES
    for number, words in enumerate(pages.commands(page))
    if words[0] == "python"
]


@pytest.mark.parametrize("words", PYTHON_COMMANDS)
def test_every_command_has_flags_and_fields_that_exist(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, binary, *arguments = words
    assert (ROOT / binary).is_file()
    given = [word.removeprefix("--").partition("=") for word in arguments if word.startswith("--")]
    fields = {name.removeprefix("config."): value for name, _, value in given if "." in name}
    flags = {name for name, _, _ in given if "." not in name}
    assert flags <= flags_of(ROOT / binary) | {"help"}
    config = next((value for name, _, value in given if name == "config"), None)
    if config is None:
        assert not fields
        return
    loaded = configs.load(config)
    assert set(fields) <= set(configs.fields(loaded))
    searched = [value.partition("=")[0] for name, _, value in given if name == "search"]
    assert set(searched) <= set(configs.fields(loaded))
    methods = next((value for name, _, value in given if name == "methods"), "")
    assert set(filter(None, methods.split(","))) <= set(published.names())


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_make_target_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = {words[1] for words in pages.commands(page) if words[0] == "make"}
    assert targets <= {*re.findall(r"^(\w+):", makefile, flags=re.M)}


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_config_field_that_a_page_names_exists(page):
    named = {
        match[1]
        for code in pages.inline_code(page)
        if (match := re.match(rf"(?:--)?(?:config\.)?((?:{'|'.join(SECTIONS)})\.[\w.]+)", code))
    }
    fields = {name for name in named if not name.endswith((".py", ".keras"))}
    assert fields <= set(configs.MEANINGS)


def rows_of_methods() -> dict[str, dict[str, str]]:
    """Returns each row of the tables of methods by name, with the heading of its section."""
    rows = {}
    for section in pages.text("docs/methods.md").split("\n## ")[1:]:
        heading, *lines = section.splitlines()
        table = [line.strip("|").split(" | ") for line in lines if line.startswith("|")]
        if not table or table[0][0].strip() != "method":
            continue
        columns = [cell.strip() for cell in table[0]]
        for cells in table[2:]:
            row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
            rows[row["method"].strip("`")] = {**row, "section": heading}
    return rows


METHODS = [name for name in tfkd.distillers.names() if name in rows_of_methods()]


def test_the_tables_of_methods_have_a_row_for_every_method():
    folder = ROOT / "tfkd" / "distillers"
    shipped = {
        name
        for name in tfkd.distillers.names()
        if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
    }
    rows = rows_of_methods()
    assert {name for name in rows if re.fullmatch(r"\w+", name)} == shipped
    assert all(row["paper"] and row["exact"] for row in rows.values())


@pytest.mark.parametrize("name", METHODS)
def test_the_row_of_a_method_says_what_the_method_requires(name):
    row, method = rows_of_methods()[name], tfkd.distillers.create(name)
    assert (row["soft labels"] == "yes") == method.requires.allows_soft_labels
    assert row["section"].lower().endswith("without a teacher") != method.requires.needs_teacher
    for view in method.requires.views:
        assert view == "main" or f"`{view}`" in row["reads"]
    assert ("`index`" in row["reads"]) == method.requires.index


@pytest.mark.parametrize("name", [name for name in published.names() if name in METHODS])
def test_the_row_of_a_method_has_the_published_weights(name):
    weight, label = re.match(r"([\d.]+) / ([\d.]+|-)", rows_of_methods()[name]["weights"]).groups()
    preset, method = published.preset(name), tfkd.distillers.create(name)
    assert float(weight) == preset.weight
    assert (label == "-") == method.replaces_label_loss
    assert label == "-" or float(label) == preset.student_loss_weight


def test_reconstructions_are_called_so_in_the_file_and_in_the_table():
    for name, row in rows_of_methods().items():
        module = ROOT / "tfkd" / "distillers" / f"{name}.py"
        if module.is_file():
            head = ast.get_docstring(ast.parse(module.read_text()))
            assert ("RECONSTRUCTION" in head) == (
                "**reconstruction**" in row["reconstruction, departure, choice"]
            ), name


def rooms() -> list[str]:
    """Returns the rooms in the order of the table of the architecture."""
    return re.findall(r"^\| `tfkd/(\w+)` \|", pages.text("docs/architecture.md"), flags=re.M)


def rooms_imported(path: Path) -> set[str]:
    """Returns the parts of tfkd that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tfkd":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfkd."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found |= {each[1] for each in parts if each[0] == "tfkd" and len(each) > 1}
    return found


def test_the_table_of_rooms_is_whole_and_imports_go_up_it():
    package = ROOT / "tfkd"
    order = rooms()
    assert set(order) == {path.parent.name for path in package.glob("*/__init__.py")}
    for position, room in enumerate(order):
        for path in package.joinpath(room).rglob("*.py"):
            below = rooms_imported(path) & set(order[position + 1 :])
            assert not below, f"{path.relative_to(ROOT)} imports {below}"
    for path in package.glob("*.py"):
        assert path.name == "__init__.py" or not rooms_imported(path) & set(order), path.name


def test_the_picture_of_the_architecture_is_whole_and_names_the_hooks_that_exist():
    tree = ElementTree.parse(ROOT / "docs" / "architecture.svg")
    words = " ".join(each.text for each in tree.iter("{http://www.w3.org/2000/svg}text"))
    for hook in ("after_step", "compute", "finalize", "variants"):
        assert hook in words and hasattr(tfkd.Objective, hook)
    for part in ("mean", "gather", "own_rows"):
        assert part in words and hasattr(tfkd.Context, part)


def test_the_table_of_hooks_names_every_hook_of_objectives():
    table = pages.text("docs/architecture.md").split("| hook | when | for |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    hooks = {
        name
        for name, member in vars(tfkd.Objective).items()
        if callable(member) and not name.startswith("_")
    }
    assert named == hooks - {"term_names", "to_terms"}
