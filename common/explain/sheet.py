"""Contact sheets: what a trained agent makes of a frame, a row per visual shift."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from common import checkpoint, gl
from common.attribution import frame_attribution
from common.build import build_agent, build_images, env_arguments
from common.config import Config
from common.envs.benchmark import BenchmarkEnv
from common.errors import UserError
from common.evaluate import Policy
from common.hardware import concrete

SCALE = 2
MARGIN, HEADER = 4, 18
STEPS = 60
"""Agent steps into the episode at which the frame is taken."""


def write_sheet(config: Config, folder: Path) -> Path:
    """Write RUN_DIR/sheet.png for a run's newest checkpoint and return its path.

    Raises:
        UserError: the run has no checkpoint.
    """
    gl.select_backend()
    if not checkpoint.exists(folder / "checkpoint"):
        raise UserError(
            f"{folder} has no checkpoint to explain; train first, or continue with --resume {folder}"
        )
    state, _ = checkpoint.load(folder / "checkpoint", None)
    config = concrete(config)
    rows = {}
    agent = None
    for shift in config.eval.shifts:
        env = BenchmarkEnv(
            **env_arguments(config),
            shift=shift,
            seed=config.seed + config.eval.seed_offset,
            clips=config.eval.clips,
        )
        if agent is None:
            agent = build_agent(config, env.action_size, build_images(config))
            agent.load_state_dict(state["agent"])
        obs = play(env, agent, STEPS)
        env.close()
        rows[shift] = panels(agent, obs)
    path = folder / "sheet.png"
    if not cv2.imwrite(str(path), cv2.cvtColor(contact_sheet(rows), cv2.COLOR_RGB2BGR)):
        raise UserError(f"{path} cannot be written")
    return path


def play(env: BenchmarkEnv, policy: Policy, steps: int) -> Tensor:
    """The observation (1, C, H, W) after `steps` of the policy mean in evaluation episode 0."""
    obs, _ = env.reset(options={"evaluation": 0, "episode": 0, "episodes": 1})
    for _ in range(steps):
        action = policy.act(torch.from_numpy(obs)[None].to(policy.device), sample=False)
        obs, _, terminated, truncated, _ = env.step(action[0].cpu().numpy())
        if terminated or truncated:
            break
    return torch.from_numpy(obs)[None]


def panels(agent, obs: Tensor) -> dict[str, np.ndarray]:
    """The newest frame and every part of the agent's explanation of it, uint8 (H, W, 3) by name."""
    obs = obs.to(agent.device)
    explained = agent.explain(obs, agent.act(obs, sample=False))
    shown = {"observation": picture(obs.float())}
    for name, value in explained.items():
        shown[name] = heat(frame_attribution(value)) if name == "attribution" else picture(value.float())
    return shown


def picture(value: Tensor) -> np.ndarray:
    """The newest frame of an image stack (1, 3F, H, W) in 0–255, or mask stack in 0–1, as uint8 (H, W, 3)."""
    channels = value[0]
    if channels.max() <= 1:  # a mask: one channel per frame, or one per colour
        channels = 255 * channels
    newest = channels[-3:] if len(channels) % 9 == 0 else channels[-1:].repeat(3, 1, 1)
    return newest.clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def heat(attribution: Tensor) -> np.ndarray:
    """The newest frame's attribution (1, F, H, W), bright where it is large, as uint8 (H, W, 3)."""
    newest = attribution[0, -1]
    scaled = (newest / newest.quantile(0.995).clamp_min(1e-12)).clamp(0, 1)
    coloured = cv2.applyColorMap((255 * scaled).byte().cpu().numpy(), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def contact_sheet(rows: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """Rows of named panels as one picture, uint8 (height, width, 3), with names above and beside them."""
    names = list(next(iter(rows.values())))
    side = SCALE * next(iter(rows.values()))[names[0]].shape[0]
    label = 96
    height = HEADER + len(rows) * (side + MARGIN)
    width = label + len(names) * (side + MARGIN)
    sheet = np.full((height, width, 3), 255, np.uint8)
    for column, name in enumerate(names):
        write(sheet, name, label + column * (side + MARGIN), HEADER - 5)
    for row, (shift, shown) in enumerate(rows.items()):
        top = HEADER + row * (side + MARGIN)
        write(sheet, shift, 4, top + side // 2)
        for column, name in enumerate(names):
            left = label + column * (side + MARGIN)
            sheet[top : top + side, left : left + side] = shown[name].repeat(SCALE, 0).repeat(SCALE, 1)
    return sheet


def write(sheet: np.ndarray, text: str, left: int, bottom: int) -> None:
    """Small dark text with its lower left corner at a pixel."""
    cv2.putText(sheet, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (30, 30, 30), 1, cv2.LINE_AA)
