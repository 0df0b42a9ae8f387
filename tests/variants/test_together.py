import re
from pathlib import Path

import torch

from common.config.registry import registered_lineage
from tests.variants.learners import FIRST_STEP, batch, build, trained
from variants import smg_drift, smg_frames, smg_lite, smg_sada


class Settings(smg_drift.Settings, smg_frames.Settings):
    pass


class All(smg_drift.SMGDrift, smg_sada.SMGSADA, smg_lite.SMGLite, smg_frames.SMGFrames):
    Settings = Settings


def test_all_variants_together_are_one_agent():
    names = f"{__name__}:All"
    agent = build(All, like=names)
    assert agent.settings.model_dump().items() >= {"drift": 6, "frames_apart": 2}.items()
    inputs, schedule = agent.prepare(batch(agent, FIRST_STEP), agent.schedule(FIRST_STEP))
    assert inputs["backdrop"].shape[1] == 9 and inputs["frame"].dim() == 0 and "noise_augmented" in inputs
    inputs = agent.with_views(inputs, schedule)
    terms, _ = agent.auxiliary_losses(inputs, schedule)
    # The target of the background is the drawn frame's backdrop.
    frame = int(inputs["frame"])
    with torch.no_grad():
        painted = agent.background.images(agent.background_encoder(inputs["composed"]))[:, frame]
    target = inputs["backdrop"][:, 3 * frame : 3 * frame + 3]
    torch.testing.assert_close(terms["background"].detach(), (painted - target).abs().mean())
    moved = trained(agent)
    assert all(value.isfinite().all() for value in moved.values())


def test_the_pages_example_takes_both_yamls():
    page = Path(__file__).parents[2] / "docs" / "variants.md"
    [example] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    made: dict[str, type] = {}
    exec(example, made)
    agent = made["SMGDriftLite"]
    assert registered_lineage(agent) == ["smg", "smg_lite", "smg_drift"]
    assert agent.backdrops is smg_drift.SMGDrift.backdrops
    assert agent.frames_decoded is smg_lite.SMGLite.frames_decoded
