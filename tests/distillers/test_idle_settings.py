"""Settings that another one leaves without effect are refused; their defaults are not."""

import pytest

from tfkd.core import registry
from tfkd.errors import TfkdError

IDLE = [
    ("crd", {"memory": "queue"}, {"bank_momentum": 0.9}, "memory='queue'"),
    ("wcord", {"memory": "queue"}, {"bank_momentum": 0.9}, "memory='queue'"),
    ("wcord", {"critic": "dual"}, {"temperature": 0.3}, "critic='dual'"),
    ("norm", {}, {"temperature": 2.0}, "kd_weight=0"),
    ("diffkd", {"use_features": False}, {"latent_width": 9}, "use_features=False"),
    ("diffkd", {"use_features": False}, {"student_tap": "stage1"}, "use_features=False"),
    (
        "reviewkd",
        {"student_taps": ("stage1",)},
        {"student_preactivation": True},
        r"student_taps=\('stage1',\)",
    ),
]


@pytest.mark.parametrize(("name", "chosen", "idle", "told"), IDLE)
def test_setting_without_effect_is_refused(name, chosen, idle, told):
    [(setting, value)] = idle.items()
    message = rf"^{name}: found {setting}={value!r} with {told}, where it has no effect; wanted "
    with pytest.raises(TfkdError, match=message):
        registry.create(name, **chosen, **idle)
    usual = registry.settings(name)[setting].default
    registry.create(name, **chosen, **{setting: usual})
    if chosen:
        registry.create(name, **idle)
