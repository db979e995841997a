"""Settings: what a declaration says is what is checked, taken by position and name, and shown."""

from __future__ import annotations

import copy
import inspect
import math
import subprocess
import sys
import types
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest

from tfkd.errors import TfkdError
from tfkd.settings import (
    Count,
    Field,
    Fraction,
    NonNegative,
    Positive,
    Range,
    Settings,
    checked,
    declare,
    field,
    fields_of,
    fill,
    values_of,
)


class Step(Settings):
    """A schedule, with a setting of every type."""

    factor: Positive = field(0.1, "factor of the rate at each milestone")
    warmup: NonNegative = 0
    share: Fraction = field(0.5, "share of the batch")
    every: Count = 1
    seed: int = -3
    per_step: bool = False
    label: str = "step"
    kind: Literal["linear", "cosine"] = "linear"
    milestones: tuple[NonNegative, ...] = (3, 6)
    exclude: tuple[str, ...] = ()
    limit: Positive | None = None
    options: dict = {}
    rows: tuple = ()

    known: ClassVar[int] = 3
    _private: int = 4
    computed: float

    def check(self) -> None:
        if self.limit is not None and self.limit < self.factor:
            raise TfkdError(f"limit: found {self.limit}, wanted one >= factor ({self.factor})")


def test_fields_are_the_annotated_public_attributes_with_a_default():
    names = (
        "factor warmup share every seed per_step label kind milestones exclude limit options rows"
    )
    assert list(fields_of(Step)) == names.split()


def test_field_knows_type_default_meaning_and_words():
    assert fields_of(Step)["factor"] == Field(
        "factor", Positive, 0.1, "factor of the rate at each milestone"
    )
    assert fields_of(Step)["warmup"].meaning == ""
    assert {name: each.wanted for name, each in fields_of(Step).items()} == {
        "factor": "a number > 0",
        "warmup": "a number >= 0",
        "share": "a number from 0 to 1",
        "every": "a whole number >= 1",
        "seed": "a whole number",
        "per_step": "True or False",
        "label": "a string",
        "kind": "'linear' or 'cosine'",
        "milestones": "a list of numbers >= 0",
        "exclude": "a list of strings",
        "limit": "a number > 0 or None",
        "options": "a dict",
        "rows": "a list",
    }


@pytest.mark.parametrize(
    "bounds, words",
    [
        (Range(low=0, below=1), "a number >= 0 and < 1"),
        (Range(above=0, high=2), "a number > 0 and <= 2"),
        (Range(high=5), "a number <= 5"),
    ],
)
def test_range_in_words(bounds, words):
    assert Field("x", Annotated[float, bounds], 0.5).wanted == words


@pytest.mark.parametrize(
    "bounds, inside, outside",
    [
        (Range(low=0), (0, 1), (-0.1,)),
        (Range(above=0), (0.1,), (0, -1)),
        (Range(high=1), (1, -5), (1.1,)),
        (Range(below=1), (0.9,), (1, 2)),
        (Range(low=0, below=1), (0, 0.5), (-1, 1)),
    ],
)
def test_range_holds_its_bounds(bounds, inside, outside):
    setting = Field("x", Annotated[float, bounds], 0.5)
    for value in inside:
        assert setting.checked("", value) == value
    for value in outside:
        with pytest.raises(TfkdError, match=r"^x: found"):
            setting.checked("", value)


def test_defaults_are_those_declared_in_the_form_of_their_type():
    made = Step()
    assert values_of(made) == {
        "factor": 0.1, "warmup": 0.0, "share": 0.5, "every": 1, "seed": -3, "per_step": False,
        "label": "step", "kind": "linear", "milestones": (3.0, 6.0), "exclude": (), "limit": None,
        "options": {}, "rows": (),
    }  # fmt: skip
    assert isinstance(made.warmup, float) and isinstance(Step.warmup, float)
    assert Step.factor == 0.1 and Step.known == 3


def test_mutable_default_is_not_shared():
    first, second = Step(), Step()
    first.options["a"] = 1
    assert (
        second.options == {} and Step().options == {} and fields_of(Step)["options"].default == {}
    )


@pytest.mark.parametrize(
    "name, given, kept",
    [
        ("factor", 2, 2.0),
        ("factor", np.float32(0.5), 0.5),
        ("factor", np.int64(3), 3.0),
        ("factor", np.array(0.25), 0.25),
        ("every", np.int64(7), 7),
        ("share", 0, 0.0),
        ("share", 1, 1.0),
        ("per_step", True, True),
        ("per_step", np.bool_(True), True),
        ("label", "", ""),
        ("kind", "cosine", "cosine"),
        ("milestones", [1, np.float64(2.5)], (1.0, 2.5)),
        ("milestones", (), ()),
        ("exclude", ["bias"], ("bias",)),
        ("exclude", "bias", ("bias",)),
        ("limit", 2, 2.0),
        ("limit", None, None),
        ("options", types.MappingProxyType({"a": [1]}), {"a": [1]}),
        ("rows", [1, "a"], (1, "a")),
    ],
)
def test_value_is_kept_in_the_form_of_its_type(name, given, kept):
    found = getattr(Step(**{name: given}), name)
    assert found == kept and type(found) is type(kept)


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("factor", 0, "a number > 0"),
        ("factor", -1.5, "a number > 0"),
        ("factor", True, "a number > 0"),
        ("factor", np.bool_(True), "a number > 0"),
        ("factor", "0.1", "a number > 0"),
        ("factor", None, "a number > 0"),
        ("factor", math.nan, "a number > 0"),
        ("factor", np.float32("inf"), "a number > 0"),
        ("factor", 10**400, "a number > 0"),
        ("factor", np.ones(2), "a number > 0"),
        ("factor", 1j, "a number > 0"),
        ("warmup", -1e-9, "a number >= 0"),
        ("share", 1.01, "a number from 0 to 1"),
        ("every", 0, "a whole number >= 1"),
        ("every", 2.0, "a whole number >= 1"),
        ("every", True, "a whole number >= 1"),
        ("seed", math.inf, "a whole number"),
        ("per_step", 1, "True or False"),
        ("per_step", "yes", "True or False"),
        ("label", 3, "a string"),
        ("kind", 3, "'linear' or 'cosine'"),
        ("milestones", (1, -1), "a list of numbers >= 0"),
        ("milestones", 3, "a list of numbers >= 0"),
        ("milestones", "36", "a list of numbers >= 0"),
        ("milestones", (1, None), "a list of numbers >= 0"),
        ("exclude", ("bias", 3), "a list of strings"),
        ("exclude", None, "a list of strings"),
        ("limit", 0, "a number > 0 or None"),
        ("options", [1], "a dict"),
        ("rows", "ab", "a list"),
    ],
)
def test_wrong_value_is_refused_with_what_was_found_and_wanted(name, value, wanted):
    with pytest.raises(TfkdError) as told:
        Step(**{name: value})
    assert str(told.value) == f"Step: {name}: found {value!r}, wanted {wanted}"


def test_unknown_choice_is_refused_with_the_nearest():
    with pytest.raises(TfkdError) as told:
        Step(kind="cosin")
    assert str(told.value) == (
        "unknown kind of Step 'cosin'; did you mean 'cosine'? (known: cosine, linear)"
    )
    with pytest.raises(TfkdError, match=r"^unknown train\.kind 'cosin'; did you mean 'cosine'"):
        fields_of(Step)["kind"].checked("train.", "cosin")


def test_value_of_no_class_is_checked_by_its_type():
    assert checked("weights", tuple[NonNegative, ...], [1, 2]) == (1.0, 2.0)
    with pytest.raises(TfkdError, match=r"^weight: found -1, wanted a number >= 0$"):
        checked("weight", NonNegative, -1)
    with pytest.raises(TfkdError, match=r"^unknown kind 'b'; did you mean 'ab'"):
        checked("kind", Literal["ab", "cd"], "b")


def test_place_of_a_value_stands_before_its_name():
    with pytest.raises(TfkdError, match=r"^train\.every: found 0, wanted a whole number >= 1$"):
        fields_of(Step)["every"].checked("train.", 0)


def test_signature_shows_plain_types_and_defaults():
    parameters = inspect.signature(Step).parameters
    assert list(parameters) == list(fields_of(Step))
    assert str(parameters["factor"]) == "factor: float = 0.1"
    assert str(parameters["milestones"]) == "milestones: tuple[float, ...] = (3.0, 6.0)"
    assert str(parameters["kind"]) == "kind: Literal['linear', 'cosine'] = 'linear'"
    assert str(parameters["limit"]) == "limit: float | None = None"
    assert "factor: factor of the rate at each milestone\n" in Step.__init__.__doc__
    assert "warmup: a number >= 0\n" in Step.__init__.__doc__


def test_arguments_are_taken_by_position_and_by_name():
    made = Step(0.2, 3, every=2)
    assert (made.factor, made.warmup, made.every) == (0.2, 3.0, 2)
    with pytest.raises(TypeError, match="too many positional arguments"):
        Step(*range(20))
    with pytest.raises(TypeError, match="multiple values for argument 'factor'"):
        Step(0.2, factor=0.3)


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(TfkdError, match=r"^unknown setting of Step 'factr'; did you mean 'factor'"):
        Step(factr=1)


def test_rules_across_settings_are_checked_last():
    with pytest.raises(TfkdError, match=r"^limit: found 0.05, wanted one >= factor"):
        Step(limit=0.05)
    with pytest.raises(TfkdError, match=r"^limit: found 0.05"):
        Step.from_mapping({"limit": 0.05}, "schedule.")


def test_mapping_is_read_and_checked():
    made = Step.from_mapping({"factor": 1, "milestones": [2]}, "schedule.")
    assert made == Step(1.0, milestones=(2.0,))
    with pytest.raises(TfkdError, match=r"^schedule\.factor: found 0, wanted a number > 0$"):
        Step.from_mapping({"factor": 0}, "schedule.")
    with pytest.raises(TfkdError, match=r"^unknown setting of schedule 'evry'; did you mean 'eve"):
        Step.from_mapping({"evry": 0}, "schedule.")


def test_assignment_is_checked():
    made = Step()
    made.factor = 3
    assert made.factor == 3.0 and isinstance(made.factor, float)
    with pytest.raises(TfkdError, match=r"^Step: factor: found 0, wanted a number > 0$"):
        made.factor = 0
    with pytest.raises(TfkdError, match=r"^unknown setting of Step 'facto'; did you mean 'factor'"):
        made.facto = 1


def test_settings_compare_show_and_copy_by_value():
    assert Step(0.2) == Step(factor=0.2) != Step(0.3)
    assert copy.deepcopy(Step(0.2)) == Step(0.2)

    class Other(Step):
        pass

    assert Other(0.2) != Step(0.2)

    class Short(Settings):
        factor: Positive = 1.0
        word: str = "a"

    assert repr(Short(2)) == "Short(factor=2.0, word='a')"


def test_subclass_adds_settings_and_changes_defaults():
    class Slow(Step):
        warmup = 5
        factor: Fraction = 0.9
        restarts: Count = field(2, "how often it starts anew")

    assert list(fields_of(Slow)) == [*fields_of(Step), "restarts"]
    assert (Slow().warmup, Slow().factor, Slow().restarts) == (5.0, 0.9, 2)
    assert Slow(0.5, restarts=3).restarts == 3
    assert fields_of(Slow)["share"].meaning == "share of the batch"
    assert (Step().warmup, Step(factor=2).factor) == (0.0, 2.0)
    with pytest.raises(TfkdError, match=r"^Slow: factor: found 2, wanted a number from 0 to 1$"):
        Slow(factor=2)


def test_subclass_fixes_or_computes_what_was_a_setting():
    class Fixed(Step):
        factor: ClassVar[float] = 0.3

        @property
        def share(self) -> float:
            return 0.25

    assert not {"factor", "share"} & set(fields_of(Fixed))
    assert (Fixed().factor, Fixed().share) == (0.3, 0.25)
    with pytest.raises(TfkdError, match="unknown setting of Fixed 'factor'"):
        Fixed(factor=1)


def test_annotation_of_a_base_class_for_another_purpose_stays_one():
    class Base:
        terms: tuple[str, ...] = ()
        form: type | None = None

        def __init_subclass__(cls) -> None:
            declare(cls, Base)

        def __init__(self, **given) -> None:
            fill(self, given, "base: ")

    class Method(Base):
        terms: tuple[str, ...] = ("a",)
        factor: Positive = 1.0

    assert list(fields_of(Method)) == ["factor"]
    assert Method(2).factor == 2.0 and Method.terms == ("a",)


def test_parameters_of_the_root_follow_the_settings():
    class Named:
        def __init_subclass__(cls) -> None:
            last = list(inspect.signature(Named.__init__).parameters.values())[1:]
            declare(cls, Named, last)

        def __init__(self, name="none", **kwargs) -> None:
            self.name = name
            fill(self, kwargs, f"{name}: ")

    class Method(Named):
        factor: Positive = 1.0

    assert str(inspect.signature(Method)) == "(factor: float = 1.0, name='none', **kwargs)"
    assert (Method(2, "mine").name, Method(2, "mine").factor) == ("mine", 2.0)
    assert Method(name="mine", factor=3).factor == 3.0
    with pytest.raises(TfkdError, match=r"^unknown setting of none 'facto'; did you mean 'factor'"):
        Method(facto=1)


def test_handwritten_init_stays():
    class Own(Settings):
        factor: Positive = 1.0

        def __init__(self, twice: float) -> None:
            super().__init__(factor=2 * twice)

    class Derived(Own):
        warmup: NonNegative = 3.0

    assert Own(2).factor == 4.0
    assert (Derived(2).factor, Derived(2).warmup) == (4.0, 3.0)
    with pytest.raises(TfkdError, match=r"^Own: factor: found -2, wanted a number > 0$"):
        Own(-1)


@pytest.mark.parametrize(
    "annotation, default, told",
    [
        ("Positive", -1, r"^Wrong\.x: found -1, wanted a number > 0$"),
        ("Positive", None, r"^Wrong\.x: found None, wanted a number > 0$"),
        ("Literal['a', 'b']", "c", r"^unknown Wrong\.x 'c'"),
        ("complex", 1j, r"^Wrong\.x: found the type <class 'complex'>, wanted bool, int"),
        ("list", (), r"^Wrong\.x: found the type <class 'list'>, wanted bool, int"),
        ("int | str", 1, r"^Wrong\.x: found the type int \| str, wanted bool, int"),
        ("tuple[int, int]", (1, 2), r"^Wrong\.x: found the type tuple\[int, int\], wanted bool"),
        ("tuple[complex, ...]", (), r"^Wrong\.x: found the type <class 'complex'>, wanted bool"),
    ],
)
def test_wrong_declaration_is_refused_where_it_stands(annotation, default, told):
    with pytest.raises(TfkdError, match=told):
        type("Wrong", (Settings,), {"__annotations__": {"x": annotation}, "x": default} | _HERE)


def test_class_of_a_file_that_is_no_known_module(tmp_path):
    source = (
        "from __future__ import annotations\n"
        "from tfkd.settings import Positive, Settings\n"
        "class Mine(Settings):\n"
        "    factor: Positive = 1.0\n"
    )
    module = types.ModuleType("not_in_sys_modules")
    exec(compile(source, tmp_path / "mine.py", "exec"), vars(module))
    assert module.Mine(2).factor == 2.0


def test_annotation_of_a_local_type():
    small = Annotated[float, Range(below=1)]

    class Mine(Settings):
        factor: small = 0.5

    with pytest.raises(TfkdError, match=r"^Mine: factor: found 1, wanted a number < 1$"):
        Mine(1)


def test_engine_needs_neither_keras_nor_tensorflow():
    source = (
        "import sys, types\n"
        "package = types.ModuleType('tfkd'); package.__path__ = ['tfkd']\n"
        "sys.modules['tfkd'] = package\n"
        "import tfkd.settings\n"
        "print({'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert found.stdout.strip() == "set()", found.stderr


_HERE = {"__module__": __name__}
