"""Published distillation methods, one file each; the file, its name and the class agree."""

from tfkd.core.registry import create, names
from tfkd.distillers.at import AT, at_loss, attention_map
from tfkd.distillers.auxvar.objective import AuxVar
from tfkd.distillers.cocord import CoCoRD, contrast_loss, prediction_loss
from tfkd.distillers.crd import CRD, crd_loss
from tfkd.distillers.cs_kd import CSKD, cs_kd_loss
from tfkd.distillers.dbt import DBT
from tfkd.distillers.deep_supervision import DeepSupervision
from tfkd.distillers.dense_kd import DenseKD, dense_weights
from tfkd.distillers.diffkd.diffusion import diffusion_loss
from tfkd.distillers.diffkd.objective import DiffKD
from tfkd.distillers.dist import DIST, inter_class_loss, intra_class_loss
from tfkd.distillers.dkd import DKD, dkd_loss
from tfkd.distillers.fitnets import FitNets, hint_loss
from tfkd.distillers.hdkd.distiller import HDKDDistiller
from tfkd.distillers.hdkd.objective import HDKD
from tfkd.distillers.imta import IMTA
from tfkd.distillers.ipwd import IPWD, ipwd_loss
from tfkd.distillers.kd import KD, kd_loss
from tfkd.distillers.mld import MLD
from tfkd.distillers.nkd import NKD, nkd_loss
from tfkd.distillers.norm import NORM, norm_loss
from tfkd.distillers.pbkd.objective import PBKD, local_loss
from tfkd.distillers.pkkd.distiller import PKKDDistiller
from tfkd.distillers.pkkd.objective import PKKD, blend_loss
from tfkd.distillers.pkt import PKT, pkt_loss
from tfkd.distillers.plain import Plain
from tfkd.distillers.ps_kd import PSKD, ps_kd_loss
from tfkd.distillers.reviewkd import ReviewKD, reviewkd_loss
from tfkd.distillers.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from tfkd.distillers.shared.standardization import standardized
from tfkd.distillers.sp import SP, sp_loss
from tfkd.distillers.srrl import SRRL, srrl_losses
from tfkd.distillers.sskd import SSKD, sskd_losses
from tfkd.distillers.teacher_free import TeacherFree
from tfkd.distillers.uskd import USKD
from tfkd.distillers.vid import VID, vid_loss
from tfkd.distillers.wcord import WCoRD, dual_loss, transport_loss
from tfkd.distillers.wsld import WSLD, wsld_loss

__all__ = [
    "AT",
    "CRD",
    "CSKD",
    "DBT",
    "DIST",
    "DKD",
    "HDKD",
    "HDKDDistiller",
    "IMTA",
    "IPWD",
    "KD",
    "MLD",
    "NKD",
    "NORM",
    "PBKD",
    "PKKD",
    "PKKDDistiller",
    "PKT",
    "PSKD",
    "RKD",
    "SP",
    "SRRL",
    "SSKD",
    "USKD",
    "VID",
    "WSLD",
    "AuxVar",
    "CoCoRD",
    "DeepSupervision",
    "DenseKD",
    "DiffKD",
    "FitNets",
    "Plain",
    "ReviewKD",
    "TeacherFree",
    "WCoRD",
    "at_loss",
    "attention_map",
    "blend_loss",
    "contrast_loss",
    "crd_loss",
    "create",
    "cs_kd_loss",
    "dense_weights",
    "diffusion_loss",
    "dkd_loss",
    "dual_loss",
    "hint_loss",
    "inter_class_loss",
    "intra_class_loss",
    "ipwd_loss",
    "kd_loss",
    "local_loss",
    "names",
    "nkd_loss",
    "norm_loss",
    "pkt_loss",
    "prediction_loss",
    "ps_kd_loss",
    "reviewkd_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "sp_loss",
    "srrl_losses",
    "sskd_losses",
    "standardized",
    "transport_loss",
    "vid_loss",
    "wsld_loss",
]
