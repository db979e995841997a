"""The published weights and hyper-parameters of each method, as a config takes them.

    config = tfkd.training.config.default()
    published.apply(config, "dkd", teacher="resnet56", student="resnet20")

Sources are in the docstring of each method. Where nobody published settings for a set of images,
those of the paper are used, or those for the other set, and the preset is ``marked``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_collections

from tfkd.errors import TfkdError, unknown
from tfkd.training.config import methods, vary

SETS = ("cifar100", "imagenet")
"""The sets of images that hyper-parameters were published for."""

OF_EXITS = (
    "deep_supervision", "dbt", "dbt_constant", "dense_kd", "hdkd", "hmsdnet", "hdbt", "imta",
)  # fmt: skip
"""The presets for networks with several exits."""

SELF_TEACHER = "self_teacher"
"""Stands for a teacher that is the student's own architecture, trained alone before."""


@dataclass(frozen=True)
class Preset:
    """How a method enters a config.

    Attributes:
        method: The registered name.
        weight: Its weight in the total loss.
        settings: Its hyper-parameters, where they are not the defaults.
        student_loss_weight: Weight of the label loss.
        teacher: Whether it has a teacher (True), none (False) or :data:`SELF_TEACHER`.
        also: Further methods beside it: by registered name what their entries hold, weight
            included.
        marked: Where the values come from, if none were published for these images; empty if they
            were.
        search: What ``tools/tune.py`` tries where nothing better is known: values by setting, the
            weight among them.
    """

    method: str
    weight: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    student_loss_weight: float = 1.0
    teacher: bool | str = True
    also: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    marked: str = ""
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def teacher_network(self, given: str | None, student: str) -> str | None:
        """Returns the network that teaches: the one given, or, in self-distillation, the student's.

        Raises:
            TfkdError: When the method has a teacher and none is given.
        """
        if self.teacher == SELF_TEACHER:
            return student
        if self.teacher and not given:
            raise TfkdError(f"{self.method} needs a teacher; wanted METHOD,TEACHER,{student}")
        return given


# KD beside a feature method, as the CRD comparison adds it.
_KD = {"kd": {"weight": 1.0, "temperature": 4.0}}

_OURS = "ours: no values are known"
_RECALLED = "recalled, as is the method"
_OTHER_SET = "those for CIFAR-100"
_IMAGENET_ALONE = "published for ImageNet alone"
_HDKD = "ours, but for the share of V"

# AuxVar's values are not known: these are the ones around which its reconstruction is searched.
_AUXVAR_SEARCH = {
    "kappa": (5.0, 10.0, 14.3, 20.0),
    "temperature": (1.0, 2.0, 4.0),
    "weight": (0.5, 1.0, 2.0, 4.0),
    "queue_size": (1024, 4096, 16384),
    "center": (False, True),
}
# InfoNCE asks for no classes, so that no temperature enters its loss.
_INFONCE_SEARCH = {key: each for key, each in _AUXVAR_SEARCH.items() if key != "temperature"}

_CIFAR100 = {
    "kd": Preset("kd", 0.9, {"temperature": 4.0}, 0.1),
    # Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024.
    "kd_standardized": Preset("kd", 9.0, {"temperature": 2.0, "standardize": True}, 0.1),
    "kd_standardized_code": Preset(
        "kd", 9.0, {"temperature": 2.0, "standardize": True, "variant": "code"}, 0.1
    ),
    "dkd": Preset("dkd"),
    "ipwd": Preset("ipwd", student_loss_weight=0.1),
    "wsld": Preset("wsld", 2.25, {"temperature": 4.0}),
    "cs_kd": Preset("cs_kd", teacher=False),
    "teacher_free": Preset("teacher_free", teacher=False),
    "teacher_free_self": Preset("teacher_free", settings={"form": "self"}, teacher=SELF_TEACHER),
    "label_smoothing": Preset("teacher_free", settings={"form": "label_smoothing"}, teacher=False),
    "ps_kd": Preset("ps_kd", teacher=False),
    "nkd": Preset("nkd"),
    "uskd": Preset("uskd", teacher=False),
    "mld": Preset("mld"),
    "mld_clean": Preset("mld", settings={"variant": "clean"}),
    "dist": Preset("dist", 2.0),
    # Pairs that are not listed below have the default of the authors' code.
    "reviewkd": Preset("reviewkd"),
    "norm": Preset(
        "norm",
        student_loss_weight=0.25,
        marked="label loss: ours, of the swept 1/16, 1/8, 1/4, 1/2",
    ),
    # Tian et al., "Contrastive Representation Distillation", ICLR 2020.
    "crd": Preset("crd", 0.8),
    "crd_kd": Preset("crd", 0.8, also=_KD),
    "fitnets": Preset("fitnets", 100.0),
    "fitnets_two_stage": Preset(
        "fitnets", settings={"form": "two_stage"}, marked="the paper's, for other networks"
    ),
    "at": Preset("at", 1000.0),
    "vid": Preset("vid"),
    "sp": Preset("sp", 3000.0),
    "rkd": Preset("rkd"),
    "pkt": Preset("pkt", 30000.0),
    "srrl": Preset("srrl", marked=_IMAGENET_ALONE),
    # As the CIFAR-100 comparisons run it.
    "srrl_kd": Preset("srrl", settings={"connector_on": "pooled"}, also=_KD),
    "cocord": Preset("cocord"),
    "diffkd": Preset("diffkd", marked=f"weights {_IMAGENET_ALONE}, the width of the code"),
    "wcord": Preset("wcord", marked=_RECALLED),
    "wcord_kd": Preset("wcord", also=_KD, marked=_RECALLED),
    "sskd": Preset("sskd"),
    # Every block has a stage of train.epochs.
    "pbkd": Preset("pbkd", 0.005, marked="lambda of a reproduction"),
    # Its ablation: the losses, the variable itself, whose place KD at the same temperature takes,
    # and stored classes that are as sharp as the teacher. KD has a factor T^2 that AuxVar has not:
    # once it stays, once the weight takes it away.
    "auxvar": Preset("auxvar", marked=_OURS, search=_AUXVAR_SEARCH),
    "auxvar_elbo": Preset(
        "auxvar", settings={"objective": "elbo"}, marked=_OURS, search=_AUXVAR_SEARCH
    ),
    "auxvar_infonce": Preset(
        "auxvar", settings={"objective": "infonce"}, marked=_OURS, search=_INFONCE_SEARCH
    ),
    "auxvar_no_variable": Preset("kd", settings={"temperature": 4.0}, marked=_OURS),
    "auxvar_no_variable_unscaled": Preset("kd", 1 / 16, {"temperature": 4.0}, marked=_OURS),
    "auxvar_untied": Preset("auxvar", settings={"query_temperature": 1.0}, marked=_OURS),
    "auxvar_bayes_head": Preset("auxvar", settings={"head": "bayes"}, marked=_OURS),
    # Those of OF_EXITS, for MSDNets, or any network by the network multi_exit.
    "deep_supervision": Preset("deep_supervision", teacher=False),
    "dbt": Preset("dbt", teacher=False),
    "dbt_constant": Preset("dbt", settings={"form": "constant"}, teacher=False),
    "dense_kd": Preset("dense_kd", teacher=False, marked="those of DBT"),
    # hmsdnet and hdbt learn part of the weights.
    "hdkd": Preset("hdkd", teacher=False, marked=_HDKD),
    "hmsdnet": Preset("hdkd", settings={"form": "hmsdnet"}, teacher=False, marked=_HDKD),
    "hdbt": Preset("hdkd", settings={"form": "hdbt"}, teacher=False, marked=_HDKD),
    "imta": Preset("imta", teacher=False, marked=_IMAGENET_ALONE),
}
_MLD_IMAGENET = {
    "temperatures": (1.0, 3.0, 5.0, 2.0, 6.0),
    "label_weight": 0.5,
    "distillation_weight": 0.5,
}
# What stands for both sets.
_FOR_BOTH = ("deep_supervision", "dbt", "dbt_constant")
_IMAGENET = {
    name: preset if preset.marked or name in _FOR_BOTH else replace(preset, marked=_OTHER_SET)
    for name, preset in _CIFAR100.items()
} | {
    # By the weights of the DKD comparison.
    "kd": Preset("kd", 0.5, {"temperature": 1.0}, 0.5),
    "dkd": Preset("dkd", settings={"temperature": 1.0, "warmup_epochs": 1.0}),
    "wsld": Preset("wsld", 2.5, {"temperature": 2.0}),
    "nkd": Preset("nkd", settings={"temperature": 1.0, "nontarget_weight": 1.5}),
    "uskd": Preset(
        "uskd",
        settings={"target_weight": 1.0, "weak_weight": 0.005},
        teacher=False,
    ),
    "mld": Preset("mld", settings=_MLD_IMAGENET),
    "mld_clean": Preset("mld", settings=_MLD_IMAGENET | {"variant": "clean"}),
    "dist": Preset("dist", 2.0, {"temperature": 1.0}),
    "diffkd": Preset("diffkd", settings={"latent_width": 1024}),
    "sskd": Preset("sskd", settings={"label_weight": 1.0}, marked="as torchdistill has it"),
    "srrl": Preset("srrl"),
    "imta": Preset("imta", teacher=False),
    "reviewkd": Preset("reviewkd", settings={"warmup_epochs": 0.0, "student_preactivation": True}),
    # As for CIFAR-100, with a longer queue.
    **{
        name: replace(preset, settings={**preset.settings, "queue_size": 16384})
        for name, preset in _CIFAR100.items()
        if preset.method == "auxvar"
    },
    "norm": Preset(
        "norm",
        settings={
            "phase_epochs": (5.0, 15.0, 60.0, 80.0),
            "phase_factors": (0.1, 0.5, 0.9, 0.5, 0.1),
        },
    ),
}
_PRESETS = {"cifar100": _CIFAR100, "imagenet": _IMAGENET}

# By (preset, teacher, student), or (preset, student) where the teacher does not matter: settings of
# the method, its weight as "weight" and that of the label loss as "student_loss_weight".
_BY_NETWORK: dict[tuple[str, ...], dict[str, float]] = {
    ("dkd", "resnet56", "resnet20"): {"nontarget_weight": 2.0},
    ("dkd", "resnet110", "resnet32"): {"nontarget_weight": 2.0},
    ("dkd", "vgg13", "vgg8"): {"nontarget_weight": 6.0},
    ("dkd", "vgg13", "mobilenetv2"): {"nontarget_weight": 6.0},
    ("dkd", "wrn_40_2", "wrn_16_2"): {"nontarget_weight": 6.0},
    ("dkd", "wrn_40_2", "wrn_40_1"): {"nontarget_weight": 6.0},
    ("dkd", "resnet34", "resnet18"): {"nontarget_weight": 0.5},
    ("dkd", "resnet50", "mobilenetv1"): {"nontarget_weight": 2.0},
    ("teacher_free", "mobilenetv2"): {
        "teacher_weight": 0.95, "temperature": 40.0, "multiplier": 1.0,
    },
    ("teacher_free", "shufflev2"): {
        "teacher_weight": 0.95, "temperature": 10.0, "multiplier": 1.0,
    },
    ("teacher_free_self", "mobilenetv2"): {"temperature": 20.0, "multiplier": 1.0},
    ("teacher_free_self", "shufflev2"): {"temperature": 20.0, "multiplier": 1.0},
    ("reviewkd", "wrn_40_2", "wrn_16_2"): {"weight": 5.0},
    ("reviewkd", "wrn_40_2", "wrn_40_1"): {"weight": 5.0},
    ("reviewkd", "wrn_40_2", "shufflev1"): {"weight": 5.0},
    ("reviewkd", "resnet32x4", "resnet8x4"): {"weight": 5.0},
    ("reviewkd", "resnet32x4", "shufflev1"): {"weight": 5.0},
    ("reviewkd", "resnet32x4", "shufflev2"): {"weight": 8.0},
    ("reviewkd", "resnet56", "resnet20"): {"weight": 0.6},
    ("reviewkd", "resnet110", "resnet32"): {"weight": 1.0},
    ("reviewkd", "resnet50", "mobilenetv1"): {"weight": 8.0, "max_channels": 256},
    ("norm", "resnet50", "mobilenetv1"): {"student_loss_weight": 0.125},
}  # fmt: skip


def names(images: str = "cifar100") -> tuple[str, ...]:
    """Returns the presets for a set of images: the methods, and variants of some."""
    return tuple(_presets(images))


def preset(name: str, images: str = "cifar100") -> Preset:
    """Returns a preset.

    Args:
        name: One of :func:`names`.
        images: One of :data:`SETS`.

    Raises:
        TfkdError: For an unknown name; the nearest is named.
    """
    presets = _presets(images)
    if name not in presets:
        raise unknown("method", name, ("plain", *presets))
    return presets[name]


def apply(
    config: ml_collections.ConfigDict,
    name: str,
    *,
    images: str = "cifar100",
    teacher: str | None = None,
    student: str | None = None,
) -> Preset:
    """Sets ``methods`` and ``student_loss_weight`` of a config to the published values.

    Where a method has a search space, ``search_space`` holds it.

    Args:
        config: The experiment; its teacher is left as it is.
        name: One of :func:`names`.
        images: One of :data:`SETS`.
        teacher: Name of the teacher's network, for values that depend on it.
        student: Name of the student's network, likewise.

    Returns:
        The preset, which tells whether a teacher is needed.

    Raises:
        TfkdError: For an unknown name.
    """
    found = preset(name, images)
    own = _BY_NETWORK.get((name, str(student)), {})
    own = own | _BY_NETWORK.get((name, str(teacher), str(student)), {})
    entry = {"weight": found.weight, **found.settings, **own}
    config.student_loss_weight = entry.pop("student_loss_weight", found.student_loss_weight)
    config.methods = methods(**{found.method: entry}, **found.also)
    if found.search:
        config.search_space = tuple(
            vary(f"methods.{found.method}.{setting}", choices=choices)
            for setting, choices in found.search.items()
        )
    return found


def _presets(images: str) -> dict[str, Preset]:
    if images not in _PRESETS:
        raise TfkdError(f"published settings for {images!r}: wanted one of {', '.join(SETS)}")
    return _PRESETS[images]
