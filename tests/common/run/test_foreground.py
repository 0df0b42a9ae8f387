import numpy as np
import pytest

from common.envs.benchmark import BenchmarkEnv
from common.run.foreground import foreground_share, resolve_rho
from common.run.shares import MEASURED, measured
from tests import runs

# Shares measured at 84×84 under random actions, camera 0, to which the simulator's random states add ±10%.
SHARES = {"walker_walk": 0.067, "cartpole_swingup": 0.037}


@pytest.mark.slow
@pytest.mark.parametrize("task", SHARES)
def test_share_is_that_of_the_pixels_that_show_neither_sky_nor_floor(tmp_path, task):
    share = foreground_share(runs.smoke(tmp_path, "smg", "env.episode_steps=400", task=task), steps=60)
    assert share.mean == pytest.approx(SHARES[task], rel=0.15)
    assert 0 <= share.deviation < share.mean


def test_a_frame_of_a_failed_simulation_does_not_count(tmp_path, monkeypatch):
    config = runs.smoke(tmp_path, "smg")
    step, masks = BenchmarkEnv.step, []

    def failing(env, action):
        *outcome, info = step(env, action)
        masks.append(env.segmentation())
        return *outcome, info | ({"diverged": True} if len(masks) == 3 else {})

    monkeypatch.setattr(BenchmarkEnv, "step", failing)
    share = foreground_share(config, steps=5)
    assert len(masks) == 5
    assert share.mean == pytest.approx(np.mean([masks[i].mean() for i in (0, 1, 3, 4)]))


def test_auto_becomes_the_measured_share_and_a_number_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(foreground_share, "__defaults__", (5,))
    smg = resolve_rho(runs.smoke(tmp_path, "smg", "smg.rho=auto"))
    sgqn = resolve_rho(runs.smoke(tmp_path, "sgqn", "sgqn.quantile=auto"))
    assert smg.settings.rho == pytest.approx(1 - sgqn.settings.quantile)
    assert 0.04 < smg.settings.rho < 0.1
    fixed = runs.smoke(tmp_path, "smg", "smg.rho=0.3")
    assert resolve_rho(fixed) is fixed
    # What was measured stays so when the run goes on with the number, until somebody sets another.
    found, by_hand = {MEASURED: {"rho": smg.settings.rho}}, {MEASURED: {}}
    asked = runs.smoke(tmp_path, "smg", "smg.rho=auto")
    assert measured(asked, smg, None) == measured(asked, smg, by_hand) == found
    assert measured(smg, smg, found) == found
    assert measured(smg, smg, by_hand) == measured(fixed, fixed, found) == by_hand
    # Of a run that began before it was recorded nobody knows; of one without such settings nothing is.
    assert measured(smg, smg, {}) == measured(runs.smoke(tmp_path), runs.smoke(tmp_path), None) == {}


@pytest.mark.slow
def test_auto_is_the_same_for_runs_of_every_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(foreground_share, "__defaults__", (5,))
    own, other = (runs.smoke(tmp_path, "smg", "smg.rho=auto", f"seed={seed}") for seed in (0, 3))
    assert foreground_share(own).rho != foreground_share(other).rho
    assert resolve_rho(own).settings.rho == resolve_rho(other).settings.rho == foreground_share(own).rho
