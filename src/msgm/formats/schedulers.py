"""diffusers' schedulers and what of them a process is made of, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..model.precondition import Noise, Precondition, Sample, Score, V
from ..model.score import ScoreModel
from ..process.sde import DDPM, SDE, VESDE
from .networks import bare

DISCRETE = (
    "DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler",
    "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    "RePaintScheduler", "SASolverScheduler",
)  # fmt: skip
"""Ways to sample one process, the discrete one of DDPM: each has its betas."""

SCHEDULER, PIPELINE = "scheduler/scheduler_config.json", "model_index.json"
"""Where a pipeline's folder has them."""

CONTINUOUS = ("ScoreSdeVeScheduler",)

PREDICTIONS: dict[str, type[Precondition]] = {"epsilon": Noise, "v_prediction": V, "sample": Sample}

_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


def read_scheduler(config: Mapping[str, Any], path: object) -> tuple[SDE, Precondition]:
    """The process and the network's output that a scheduler's configuration speaks of. UserError for those not read."""
    name = config.get("_class_name")
    if name not in (*DISCRETE, *CONTINUOUS):
        raise UserError(
            f"{path}: the scheduler is a {str(name)[:60]}; read are ScoreSdeVe and those with DDPM's betas (DDPM, "
            f"DDIM, PNDM, LMS, Euler, Heun, KDPM2, DPMSolver, DEIS, UniPC, RePaint, SASolver)"
        )
    given = {**_defaults(name), **config}
    try:
        return _ve(given) if name in CONTINUOUS else _ddpm(given)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not describe a scheduler: {str(error)[:80]}") from None


def _defaults(name: str) -> dict[str, Any]:
    """What the scheduler takes for settings that older files do not have."""
    from inspect import Parameter, signature

    import diffusers

    parameters = signature(getattr(diffusers, name).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not Parameter.empty}


def _ve(given: Mapping[str, Any]) -> tuple[SDE, Precondition]:
    return VESDE(sigma_min=given["sigma_min"], sigma_max=given["sigma_max"]), Score()


def _ddpm(given: Mapping[str, Any]) -> tuple[SDE, Precondition]:
    kind, schedule = given.get("prediction_type", "epsilon"), given["beta_schedule"]
    if given.get("use_flow_sigmas"):
        raise UserError("use_flow_sigmas is set: models of flows are not read, whose times and targets are others")
    if not isinstance(kind, str) or kind not in PREDICTIONS:
        raise UserError(f"prediction_type {str(kind)[:40]!r} is not read; known: {', '.join(PREDICTIONS)}")
    if schedule not in _SCHEDULES and given["trained_betas"] is None:
        raise UserError(f"beta_schedule {str(schedule)[:40]!r} is not read; known: {', '.join(_SCHEDULES)}")
    if given.get("timestep_type", "discrete") != "discrete":
        raise UserError("timestep_type is not discrete; continuous labels are those of EDM, which has files of its own")
    betas = given["trained_betas"]
    sde = DDPM(
        steps=given["num_train_timesteps"],
        beta_start=given["beta_start"] if betas is None else DDPM.beta_start,
        beta_end=given["beta_end"] if betas is None else DDPM.beta_end,
        schedule=schedule if betas is None else "linear",
        betas=None if betas is None else tuple(betas),
        zero_snr=bool(given.get("rescale_betas_zero_snr")),
    )
    return sde, PREDICTIONS[kind]()


def scheduler_of(model: ScoreModel) -> dict[str, Any] | None:
    """scheduler_config.json of a model that diffusers can sample; None for one that it cannot."""
    sde = model.sde
    kind = next((name for name, cls in PREDICTIONS.items() if type(model.precondition) is cls), None)
    if (
        not isinstance(sde, DDPM)
        or kind is None
        or model.patch > 1
        or type(bare(model.network)).__name__ != "UNet2DModel"
    ):
        return None
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": sde.steps,
        "beta_start": sde.beta_start,
        "beta_end": sde.beta_end,
        "beta_schedule": sde.schedule,
        "trained_betas": None if sde.betas is None else list(sde.betas),
        "rescale_betas_zero_snr": sde.zero_snr,
        "prediction_type": kind,
        "variance_type": "learned_range" if _learns_variance(model) else "fixed_small",
    }


def _learns_variance(model: ScoreModel) -> bool:
    config: Mapping[str, Any] = bare(model.network).config  # type: ignore[assignment]
    return bool(config["out_channels"] == 2 * config["in_channels"])


def pipeline_of(scheduler: str) -> dict[str, Any]:
    """model_index.json beside a scheduler of this class."""
    return {
        "_class_name": "DDIMPipeline" if scheduler == "DDIMScheduler" else "DDPMPipeline",
        "scheduler": ["diffusers", scheduler],
        "unet": ["diffusers", "UNet2DModel"],
    }
