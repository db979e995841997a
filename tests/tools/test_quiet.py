"""How the binaries import TensorFlow."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
import tools.quiet
assert "sklearn" not in sys.modules
import keras
import sklearn.base
for wrappers in (keras.wrappers, tools.quiet.tf.keras.wrappers):
    made = wrappers.SKLearnClassifier(lambda X, y: keras.Sequential([keras.layers.Dense(2)]))
    assert isinstance(made, sklearn.base.BaseEstimator)
"""


def test_scikit_learn_is_imported_when_it_is_wanted_and_its_wrappers_are_whole():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
