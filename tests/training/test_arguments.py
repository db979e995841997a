"""Arguments of config files: forms, known words, and the word ``smoke`` anywhere."""

import pytest

from tfkd.errors import TfkdError
from tfkd.training import arguments

FORMS = ("METHOD,TEACHER,STUDENT", "METHOD,STUDENT", "METHOD,STUDENT,own", "plain,NETWORK")
KNOWN = {"METHOD": ("kd", "cs_kd"), "TEACHER": ("big", "small"), "STUDENT": ("big", "small")}


def parse(argument):
    return arguments.parse(argument, *FORMS, default="kd,big,small", **KNOWN)


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("kd,big,small", dict(method="kd", teacher="big", student="small")),
        ("cs_kd,small", dict(method="cs_kd", student="small")),
        ("cs_kd,small,own", dict(method="cs_kd", student="small", own=True)),
        ("plain,any thing", dict(plain=True, network="any thing")),
        ("", dict(method="kd", teacher="big", student="small")),
    ],
)
@pytest.mark.parametrize("position", [None, 0, 1, 9])
def test_words_by_name(argument, found, position):
    words = argument.split(",") if argument else []
    if position is not None:
        words.insert(position, "smoke")
    nothing = dict(method=None, teacher=None, student=None, network=None, own=False, plain=False)
    name = (argument or "kd,big,small").replace(",", "-")
    smoke = position is not None
    read = parse(",".join(words))
    assert vars(read) == {
        **nothing,
        **found,
        "smoke": smoke,
        "name": f"{name}-smoke" if smoke else name,
    }
    assert read.argument("plain", "big") == ("plain,big,smoke" if smoke else "plain,big")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("kb,big,small", "unknown method 'kb'; did you mean 'kd'"),
        ("kd,bi,small", "unknown teacher 'bi'; did you mean 'big'"),
        ("kd,big,smal", "unknown student 'smal'; did you mean 'small'"),
        ("kd", "argument 'kd': found 1 words, wanted METHOD,TEACHER,STUDENT or METHOD,STUDENT or"),
        ("kd,big,small,own", "found 4 words, .* or plain,NETWORK, such as kd,big,small"),
        ("plain,big,small", "found 3 words, wanted"),
        ("plain", "found 1 words, wanted"),
        ("kd,big,", "unknown student ''"),
    ],
)
def test_wrong_words_are_one_line(argument, message):
    with pytest.raises(TfkdError, match=message) as caught:
        parse(argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("kd,big,small", "dkd,big,small"),
        ("", "dkd"),
        ("smoke", "dkd,smoke"),
        ("smoke,kd,big", "dkd,big,smoke"),
    ],
)
def test_first_word_is_replaced_beside_smoke(argument, changed):
    assert arguments.with_first(argument, "dkd") == changed
