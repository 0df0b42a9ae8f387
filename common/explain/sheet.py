"""What training shows of each evaluation: a picture, and the numbers that cost little."""

from pathlib import Path

import numpy as np
import torch

from common.config.schema import Config
from common.data.procedural_images import procedural_images
from common.errors import UserError
from common.explain.draw import Panels, grid, panels
from common.explain.explainer import QUANTILE, Explainer
from common.explain.files import save_picture
from common.explain.numbers import Tally
from common.rl.diagnosis import forked_random
from common.rl.sac import SAC
from common.run.derived import episode_length

MOMENTS = 4
"""Frames of each shift's first episode that are looked at, evenly spaced from its start."""


class Sheet:
    """Gathers frames while an agent is evaluated, then explains them; a `common.run.trainer.Sheet`.

    It only looks: neither the overlay bank nor any random generator moves.

    Args:
        agent: the agent that is evaluated.
        config: of its run.
    """

    def __init__(self, agent: SAC, config: Config) -> None:
        quantile = getattr(config.settings, "quantile", QUANTILE)
        # A picture of its own, because drawing one from the overlay bank would change what training sees.
        backdrop = torch.from_numpy(procedural_images(1, config.env.image_size, seed=0))
        self._explainer = Explainer(config.agent, agent, quantile, backdrop)
        self._moments = [episode_length(config) * moment // MOMENTS for moment in range(MOMENTS)]
        self._frames: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}

    def due(self, step: int) -> bool:
        """Whether a frame is wanted before this agent step of an episode."""
        return step in self._moments

    def observe(self, shift: str, step: int, obs: np.ndarray, truth: np.ndarray) -> None:
        """Keep an observation, uint8 (3F, H, W), and its true foreground, bool (H, W)."""
        self._frames.setdefault(shift, {})[step] = (obs.copy(), truth)

    def finish(self) -> tuple[dict[str, dict[str, float | None]], np.ndarray]:
        """Explain what was seen since the last time, and forget it.

        Returns:
            Numbers by shift, named as docs/explain.md does; a picture with a row per shift, uint8 (height,
            width, 3).
        """
        numbers, rows = {}, {}
        for shift, frames in self._frames.items():
            numbers[shift], rows[shift] = self._explain(list(frames.values()))
        self._frames.clear()
        return numbers, grid(rows)

    def write(self, path: Path) -> tuple[dict[str, dict[str, float | None]], str | None]:
        """`finish`, with the picture written to `path`.

        Returns:
            The numbers, and why the picture could not be written, if so.
        """
        numbers, picture = self.finish()
        try:
            save_picture(path, picture)
        except UserError as error:
            return numbers, str(error)
        return numbers, None

    def _explain(self, frames: list[tuple[np.ndarray, np.ndarray]]) -> tuple[dict[str, float | None], Panels]:
        columns = self._explainer.sketch
        obs, truth = map(np.stack, zip(*frames, strict=True))
        # An agent whose `explain` draws would otherwise learn from other random numbers when it is looked at.
        with forked_random(self._explainer.agent.device):
            explained = self._explainer.explain(obs, truth, columns)
        tally = Tally()
        tally.add(explained)
        return tally.means(), panels(explained, len(frames) // 2, columns)
