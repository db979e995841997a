"""WCoRD: published numbers of its parts, spectral norms, transport plans and the two critics."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers.contrast import features, spec_of, step, use_oracle
from tests.distillers.feature_oracles import TOLERANCE, case
from tests.distillers.logit_oracles import gradients
from tfkd.distillers.shared.sinkhorn import sinkhorn_plan
from tfkd.distillers.shared.spectral_dense import SpectralDense, spectral_norm
from tfkd.distillers.wcord import WCoRD, transport_loss

CRD, _ = case("crd", "two_steps")
DRAW = np.random.default_rng(0)


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


# Heads.


def test_published_spectral_norms():
    given, expected = case("wcord", "spectral_norm")
    kernel, vector = tf.constant(given["kernel"]), tf.constant(given["u0"][0])
    for iteration in range(1, 51):
        norm, vector = spectral_norm(kernel, vector)
        if iteration in (1, 50):
            name = f"sigma_after_{iteration}_iteration{'s' if iteration > 1 else ''}"
            np.testing.assert_allclose(norm, expected[name], **TOLERANCE)
    np.testing.assert_allclose(norm, expected["sigma_exact"], **TOLERANCE)
    np.testing.assert_allclose(kernel / norm, expected["normalised_kernel_exact"], **TOLERANCE)


def test_gradient_of_the_spectral_norm_passes_through_the_kernel_alone():
    kernel, vector = tf.constant(DRAW.normal(size=(6, 4))), tf.constant(DRAW.normal(size=4))
    left = unit(kernel.numpy() @ vector.numpy())
    right = unit(kernel.numpy().T @ left)
    found, none = gradients(lambda *given: spectral_norm(*given)[0], kernel, vector)
    np.testing.assert_allclose(found, np.outer(left, right), rtol=1e-12)
    assert none is None


def test_head_becomes_1_lipschitz_and_keeps_its_kernel():
    head = SpectralDense(6, 4, 3, name="head")
    kernel = np.array(head.dense.kernel)
    vector = np.array(head.vector)
    given = DRAW.normal(size=(5, 6)).astype("float32")
    head(given)
    np.testing.assert_array_equal(head.vector, vector, "evaluation")
    for _ in range(50):
        found = head(given, training=True)
    np.testing.assert_array_equal(head.dense.kernel, kernel)
    wanted = given @ kernel / np.linalg.norm(kernel, 2) + head.dense.bias.numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# The local loss.


def test_published_transport():
    given, expected = case("wcord", "lckt_sinkhorn")
    student, teacher = (tf.constant(unit(given[name])) for name in ("student", "teacher"))
    cost = 1.0 - tf.matmul(student, teacher, transpose_b=True)
    np.testing.assert_allclose(cost, expected["cost"], atol=1e-6)
    settings = given["epsilon"], given["iterations"]
    np.testing.assert_allclose(sinkhorn_plan(cost, *settings), expected["plan"], atol=1e-6)
    loss = tf.reduce_mean(transport_loss(student, teacher, None, *settings))
    np.testing.assert_allclose(loss, expected["loss"], atol=1e-6)


@pytest.mark.parametrize("entropy_weight", [0.05, 0.1, 10.0])
def test_plan_has_uniform_marginals_and_is_finite_at_any_cost(entropy_weight):
    cost = tf.constant(DRAW.uniform(0, 2, (7, 7)), tf.float32)
    plan = sinkhorn_plan(cost, entropy_weight, 100).numpy()
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 7, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 7, rtol=1e-2)
    assert np.all(np.isfinite(sinkhorn_plan(1e6 * cost, entropy_weight, 10)))


@pytest.mark.parametrize("entropy_weight", [0.002, 0.1])
def test_iterates_are_those_of_logarithms(entropy_weight):
    cost = DRAW.uniform(0, 2, (9, 9))
    scaled, column = -cost / entropy_weight, np.zeros(9)
    for iteration in range(1, 24):
        row = -np.log(9) - np.logaddexp.reduce(scaled + column, axis=1)
        column = -np.log(9) - np.logaddexp.reduce(scaled + row[:, None], axis=0)
        if iteration in (1, 10, 23):
            plan = sinkhorn_plan(tf.constant(cost), entropy_weight, iteration)
            wanted = np.exp(scaled + row[:, None] + column)
            np.testing.assert_allclose(plan, wanted, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("moves", [False, True])
def test_a_sample_of_weight_2_is_two_samples_and_one_of_weight_0_none(moves):
    student, teacher = (tf.constant(unit(DRAW.normal(size=(4, 3)))) for _ in "st")
    weights = tf.constant([2.0, 0.0, 1.0, 1.0], tf.float64)

    def weighed(*given):
        rows = transport_loss(*given, weights, 0.2, 20, moves)
        return tf.reduce_sum(weights * rows) / 4

    def repeated(*given):
        given = (tf.gather(each, [0, 0, 2, 3]) for each in given)
        return tf.reduce_mean(transport_loss(*given, None, 0.2, 20, moves))

    np.testing.assert_allclose(weighed(student, teacher), repeated(student, teacher), rtol=1e-12)
    slopes = (gradients(loss, student, teacher) for loss in (weighed, repeated))
    for found, wanted in zip(*slopes):
        np.testing.assert_allclose(found, tf.convert_to_tensor(wanted), rtol=1e-9, atol=1e-12)
    none = transport_loss(student, teacher, tf.zeros_like(weights), 0.2, 20, moves)
    assert np.all(np.isfinite(none))


def test_gradient_of_a_constant_plan_and_of_one_that_moves():
    student, teacher = (tf.constant(unit(DRAW.normal(size=(5, 4)))) for _ in "st")

    def loss(moves):
        return lambda *given: tf.reduce_mean(
            transport_loss(*given, entropy_weight=0.2, iterations=30, differentiates_plan=moves)
        )

    plan = sinkhorn_plan(1.0 - tf.matmul(student, teacher, transpose_b=True), 0.2, 30)
    still = gradients(loss(False), student, teacher)
    np.testing.assert_allclose(still[0], -plan @ teacher, rtol=1e-10)
    np.testing.assert_allclose(still[1], -tf.transpose(plan) @ student, rtol=1e-10)
    moving = gradients(loss(True), student, teacher)
    for side, given in enumerate((student, teacher)):
        direction = DRAW.normal(size=given.shape)
        ends = [
            loss(True)(*[each + size * direction * (each is given) for each in (student, teacher)])
            for size in (1e-5, -1e-5)
        ]
        slope = tf.reduce_sum(moving[side] * direction)
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)
        assert np.abs(moving[side] - still[side]).max() > 1e-3


# The global loss.


@pytest.mark.parametrize("critic", ["nce", "dual"])
def test_published_global_loss(critic):
    given, (_, expected) = CRD["step1"], case("wcord", "gckt")
    objective = WCoRD(width=3, critic=critic, global_weight=1.0)
    objective.setup(spec_of((4,), (5,), [0, 1] * 4))
    use_oracle(objective, CRD).rows = {row[0]: row[1:] for row in given["contrast_index"]}
    for side, head in (("s", objective.student_head), ("t", objective.teacher_head)):
        kernel = np.array(CRD[f"embed_{side}"]["kernel"])
        head.dense.set_weights([kernel, np.zeros(3)])
        _, sizes, right = np.linalg.svd(kernel)
        np.testing.assert_allclose(sizes[0], expected[f"sigma_{side}"], **TOLERANCE)
        head.vector.assign(right[0])
    embedded = given["student_embedding"], given["teacher_embedding"]
    losses, carry = step(objective, *embedded, index=given["index"])
    np.testing.assert_allclose(losses["global"], expected[f"loss_{critic}"], **TOLERANCE)
    for side, network, memory in (("s", "student", "memory_t"), ("t", "teacher", "memory_s")):
        rows = np.array(CRD[memory])[given["contrast_index"]]
        products = np.einsum("bd,bkd->bk", carry["vectors"][network], rows)
        np.testing.assert_allclose(products, expected[f"g_{side}"], **TOLERANCE)


def test_terms_have_their_weights(monkeypatch):
    def losses(**settings):
        objective = WCoRD(width=6, negatives=9, **settings)
        objective.setup(spec_of((4,), (5,), [0, 1, 2, 3] * 6))
        return step(objective, *features(3), index=[5, 17, 0])[0]

    once, usual = losses(global_weight=1.0, local_weight=1.0), losses()
    np.testing.assert_allclose(usual["global"], 0.8 * once["global"], rtol=1e-6)
    np.testing.assert_allclose(usual["local"], 0.05 * once["local"], rtol=1e-6)
    # Of weight 0 there is no plan to be found.
    monkeypatch.delattr("tfkd.distillers.wcord.sinkhorn_plan")
    without = losses(local_weight=0.0)
    assert without["local"] == 0.0 and without["global"] == usual["global"]


def test_step_improves_the_vectors_of_the_spectral_norms():
    objective = WCoRD(width=6, negatives=9)
    objective.setup(spec_of((4,), (5,), [0, 1, 2, 3] * 6))
    heads = objective.student_head, objective.teacher_head
    wanted = [
        spectral_norm(tf.constant(head.dense.kernel), tf.constant(head.vector))[1] for head in heads
    ]
    step(objective, *features(3), index=[5, 17, 0])
    for head, vector in zip(heads, wanted):
        np.testing.assert_allclose(head.vector, vector, rtol=1e-5)
