"""An experiment with a network and methods of its own, as a user's config file may hold them.

Arguments: ``distilled`` (default), ``alone``, ``teacher``, ``noisy``, ``phases``.
"""

import keras
import tensorflow as tf

from tfkd import Objective, Requires, Stage, Terms, models, register
from tfkd.errors import unknown
from tfkd.training.config import default, method


@models.register("tiny")
def tiny(num_classes, input_shape, name, width=8, dropout=0.0):
    """One convolution, with dropout before the classes.

    Its activation is smooth: where rounding errors turn a ReLU on, replicas would part for good.
    """
    image = keras.Input(input_shape, name="image")
    hidden = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(image)
    hidden = models.BatchNormalization(name="stage1_pre")(hidden)
    hidden = keras.layers.Activation("silu", name="pre_pool")(hidden)
    hidden = keras.layers.AveragePooling2D(4)(hidden)
    hidden = keras.layers.Flatten(name="pooled")(hidden)
    if dropout:
        hidden = keras.layers.Dropout(dropout, name="dropout")(hidden)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(hidden)
    return keras.Model(image, logits, name=name)


@register("noisy")
class Noisy(Objective):
    """Features seen through a trained connector with noise, against a bank of earlier ones."""

    terms = ("feature", "bank")

    def __init__(self, noise: float = 0.1, dropout: float = 0.3, name: str = "noisy") -> None:
        super().__init__(name=name)
        self.noise = noise
        self.rate = dropout
        self.requires = Requires(
            taps={("student", "main"): ["pooled"], ("teacher", "main"): ["pooled"]},
            index=True,
            train_size=True,
        )

    def setup(self, spec) -> None:
        width = spec.shapes["teacher", "main"]["pooled"][-1]
        self.connector = keras.layers.Dense(width)
        self.connector.build((None, spec.shapes["student", "main"]["pooled"][-1]))
        self.dropout = keras.layers.Dropout(self.rate, seed=spec.seed + 5)
        self.draws = keras.random.SeedGenerator(spec.seed + 7)
        self.bank = self.add_weight(
            shape=(spec.train_size, width),
            initializer="zeros",
            trainable=False,
            name="bank",
            aggregation="only_first_replica",
        )

    def compute(self, context) -> Terms:
        student = self.connector(context.student("pooled"))
        student = self.dropout(student, training=context.training)
        student += self.noise * keras.random.normal(tf.shape(student), seed=self.draws)
        teacher = context.teacher("pooled")
        earlier = tf.gather(tf.convert_to_tensor(self.bank), context.index)
        losses = {
            "feature": context.mean(tf.reduce_mean(tf.square(student - teacher), -1)),
            "bank": context.mean(tf.reduce_mean(tf.square(student - earlier), -1)),
        }
        return Terms(losses, {"features": student})

    def after_step(self, context, carry) -> None:
        rows = context.gather(context.index)[:, None]
        bank = tf.convert_to_tensor(self.bank)
        features = context.gather(carry["features"])
        self.bank.assign(tf.tensor_scatter_nd_update(bank, rows, features))


@register("phases")
class Phases(Objective):
    """Features first, by an optimizer of their own, then labels; the classifier rests at first."""

    requires = Requires(taps={("student", "main"): ["pooled"], ("teacher", "main"): ["pooled"]})

    def __init__(self, epochs: int = 2, name: str = "phases") -> None:
        super().__init__(name=name)
        self.epochs = epochs

    def stages(self):
        return [
            Stage(
                "features",
                self.epochs,
                optimizer=lambda steps_per_epoch: keras.optimizers.Adam(1e-3),
                trainable=lambda distiller: distiller.student.get_layer("stem").trainable_variables,
                student_loss_weight=0.0,
            ),
            Stage("labels", self.epochs, objectives=()),
        ]

    def compute(self, context):
        student, teacher = context.student("pooled"), context.teacher("pooled")
        return context.mean(
            tf.reduce_mean(tf.square(student - teacher[:, : student.shape[-1]]), -1)
        )


METHODS = {
    "distilled": lambda: method("kd", weight=0.9, temperature=4.0),
    "noisy": lambda: method("noisy", weight=0.5),
    "phases": lambda: method("phases"),
}


def get_config(argument: str = "distilled"):
    """Returns the experiment of a role."""
    known = ("alone", "teacher", *METHODS)
    if argument not in known:
        raise unknown("argument", argument, known)
    config = default()
    config.experiment = f"tiny-{argument}"
    config.data.name = "digits"
    config.student.name = "tiny"
    config.train.epochs = 2
    config.train.batch_size = 200
    config.train.schedule.name = "cosine"
    config.train.verbose = 0
    if argument == "teacher":
        config.student.kwargs = dict(width=12)
        return config
    config.student.kwargs = dict(dropout=0.2)
    if argument in METHODS:
        config.teacher.config = f"{__file__}:teacher"
        config.distiller = (METHODS[argument](),)
    return config
