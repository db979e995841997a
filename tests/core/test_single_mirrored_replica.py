"""A mirrored strategy of one device trains as no strategy does, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import contextlib, json
import keras, numpy as np, tensorflow as tf
import tfkd

images = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
labels = (np.arange(16) % 4).astype("int32")

def trained(scope, scale, settings={}, **compile_settings):
    keras.utils.set_random_seed(1)
    with scope():
        teacher, student = (tfkd.models.create("resnet8", 4, (8, 8, 3)) for _ in range(2))
        distiller = tfkd.Distiller(teacher, student, tfkd.distillers.KD(2.0))
    before = [w.copy() for w in student.get_weights()]
    try:
        with scope():
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9, **settings)
            distiller.compile(optimizer, **compile_settings)
        distiller.fit(images * scale, labels, batch_size=8, shuffle=False, verbose=0)
    except tfkd.TfkdError as error:
        print("stopped:", error)
    trainable = [v.path for v in student.trainable_variables]
    after = {v.path: v.numpy() for v in student.variables}
    kept = all(
        np.array_equal(after[v.path], old)
        for v, old in zip(student.weights, before) if v.path in trainable
    )
    return [float(np.sum(np.abs(after[path]))) for path in trainable], kept

mirrored = tf.distribute.MirroredStrategy(["/cpu:0"])
plain, _ = trained(contextlib.nullcontext, 1.0)
alike, kept = trained(mirrored.scope, 1.0)
_, kept_in_bad_step = trained(mirrored.scope, np.nan)
trained(mirrored.scope, 1.0, {"gradient_accumulation_steps": 2})
trained(mirrored.scope, 1.0, jit_compile=True)
print(json.dumps({"plain": plain, "mirrored": alike, "kept": [kept, kept_in_bad_step]}))
"""


def test_a_single_mirrored_replica_trains_alike_and_refuses_what_it_cannot_do():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *rest, last = done.stdout.strip().splitlines()
    found = json.loads(last)
    np.testing.assert_allclose(found["mirrored"], found["plain"], rtol=1e-5)
    assert found["kept"] == [False, True]
    bad, accumulation, xla = (line for line in rest if line.startswith("stopped:"))
    assert "loss 'kd' is not finite at step 0" in bad
    assert "gradient_accumulation_steps=2 under 1 mirrored replica(s)" in accumulation
    assert "jit_compile=True (XLA) under 1 mirrored replica(s)" in xla
