"""Teachers that name their classes: other ones are refused, another order is mapped."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.fixtures import multi_exit, shades
from tfkd import TfkdError, TfkdWarning, models
from tfkd.distillers import KD

OTHER_ORDER = ("dog", "ant", "cat", "bee")
PIXELS = np.concatenate(
    [np.full((4, *shades.SHAPE), shades.SHADES[n], "uint8") for n in shades.NAMES]
)
LABELS = np.repeat(np.arange(4), 4)


def student(class_names=shades.NAMES):
    return models.Network(
        models.create("resnet8", 4, shades.SHAPE, widths=(2, 2, 2, 2)), class_names=class_names
    )


def taught(teacher, by=None, **settings):
    keras.utils.set_random_seed(1)
    return tfkd.Distiller(teacher, by or student(), KD(), 1.0, 0.0, **settings)


def losses(distiller):
    distiller.compile()
    return distiller.evaluate(PIXELS, LABELS, verbose=0, return_dict=True)


@pytest.fixture(scope="module")
def right():
    """The losses with a teacher whose classes are in the student's order."""
    keras.utils.set_random_seed(0)
    return losses(taught(shades.network(class_names=shades.NAMES)))


def test_another_order_teaches_the_same_to_the_bit(right):
    teacher = shades.network(OTHER_ORDER, OTHER_ORDER)
    with pytest.warns(
        TfkdWarning, match="^teacher shades has the classes of student resnet8 in an"
    ):
        distiller = taught(teacher)
    assert losses(distiller) == right
    assert distiller.network("teacher").class_names == shades.NAMES
    np.testing.assert_array_equal(distiller.network("teacher")(PIXELS).numpy().argmax(-1), LABELS)
    assert distiller.network("teacher").paths(["pooled"]) == {"pooled": "pooled"}


def test_the_same_order_and_unknown_names_are_taken_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error", TfkdWarning)
        for names in (None, shades.NAMES, ("0", "1", "2", "3")):
            teacher = shades.network(OTHER_ORDER, names)
            assert taught(teacher).network("teacher", as_given=True) is teacher
        teacher = shades.network(OTHER_ORDER, OTHER_ORDER)
        assert taught(teacher, student(None)).network("teacher", as_given=True) is teacher


def test_other_classes_are_refused_in_one_line():
    teacher = shades.network(class_names=("cow", "bee", "hen", "dog"))
    with pytest.raises(TfkdError) as error:
        taught(teacher)
    assert str(error.value) == (
        "teacher shades: found the classes 'cow', 'hen', wanted 'ant', 'cat' as student resnet8 "
        "has (a Network with class_names=None takes them by their numbers)"
    )
    taught(dataclasses.replace(teacher, class_names=None))


def test_names_of_another_number_of_classes_are_refused():
    with pytest.raises(TfkdError, match="teacher shades: found 3 class names, wanted 4, one a cl"):
        taught(shades.network(class_names="abc"))


def test_each_of_several_teachers_is_brought_into_order(right):
    several = [shades.network(names, names) for names in (shades.NAMES, OTHER_ORDER)]
    with pytest.warns(TfkdWarning, match="^teacher:1 shades has the classes"):
        distiller = taught(several)
    found = losses(distiller)
    np.testing.assert_allclose(found["kd"], right["kd"], rtol=1e-5)
    assert found["agreement"] == right["agreement"]


def test_every_exit_of_a_teacher_is_brought_into_order():
    exits = multi_exit.lively(multi_exit.build())
    names = [f"class {number}" for number in range(10)]
    teacher = models.Network(exits, class_names=names)
    learner = models.Network(multi_exit.build(), class_names=names[::-1])
    with pytest.warns(TfkdWarning, match="in another order"):
        distiller = tfkd.Distiller(teacher, learner)
    images = np.random.default_rng(0).normal(size=(2, *exits.input_shape[1:])).astype("float32")
    found, own = distiller.network("teacher").model(images), exits(images)
    for exit in multi_exit.NAMES:
        np.testing.assert_allclose(found[exit], own[exit][:, ::-1], rtol=1e-4, atol=1e-4)


def test_a_task_without_outputs_of_classes_and_a_subclassed_model_want_the_same_order():
    @tfkd.tasks.register("shades of a test")
    class Shades(tfkd.tasks.Task):
        name = "shades of a test"
        score = tfkd.tasks.Score("right", key="right", label="right %")
        label_loss = metrics = evaluator = None

    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.inner = shades.model()

        def call(self, images):
            return self.inner(images)

    own = Own()
    own(tf.zeros((1, *shades.SHAPE)))
    of_task = dataclasses.replace(shades.network(), task=Shades.name)
    for teacher in (models.Network(own), of_task):
        teacher = dataclasses.replace(teacher, class_names=OTHER_ORDER)
        with pytest.raises(TfkdError, match="in another order, .* wanted the same order"):
            tfkd.core.classes.aligned(
                teacher,
                shades.NAMES,
                tfkd.tasks.find(teacher.task)(),
                who="teacher",
                whose="student",
                accept="a field",
            )


def test_a_network_in_the_students_place_has_its_classes():
    def stage(names):
        network = dataclasses.replace(student(names), name="hybrid")
        return tfkd.Stage("first", 1, network=lambda distiller: network)

    distiller = taught(shades.network())
    distiller.enter_stage(stage(shades.NAMES))
    distiller.enter_stage(stage(None))
    with pytest.raises(TfkdError, match="network of stage 'first'.*in another order, wanted the s"):
        distiller.enter_stage(stage(OTHER_ORDER))
    with pytest.raises(TfkdError, match="network of stage 'first'.*found the classes 'eel'"):
        distiller.enter_stage(stage(("ant", "bee", "cat", "eel")))
