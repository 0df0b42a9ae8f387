"""An agent's numbers, from explanations small enough to count."""

import numpy as np
import pytest
import torch

from common.explain.explainer import Explanation
from common.explain.numbers import Tally

TRUTH = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]).bool()
OBS = torch.zeros(1, 6, 2, 4, dtype=torch.uint8)
OBS[:, :, 0, 0] = 80


def red(obs, action):
    """A Q that is the sum of the newest frame's red pixels."""
    return obs[:, 3].sum((1, 2)).numpy()


@pytest.fixture
def tally():
    attribution = torch.zeros(1, 2, 2, 4)
    attribution[0, :, 0, 0], attribution[0, :, 1, 1] = 3, 1
    mask = torch.full((1, 2, 2, 4), 0.1)
    mask[0, 1, 0, :3] = torch.tensor([0.9, 0.5, 0.6])
    plain = mask.clone()
    plain[0, 1, 0, 2] = 0.4
    painted = OBS.float()
    painted[0, 3:, 0, 0] += 10
    painted[0, 3, 1, 3] += 36
    explained = Explanation(
        OBS, TRUTH[None], torch.zeros(1, 2), np.zeros(1),
        {"attribution": attribution}, {"mask": mask}, {"reconstruction": painted},
    )  # fmt: skip
    tally = Tally()
    tally.add(explained, {"mask": plain}, red)
    return tally


def test_numbers_are_of_the_newest_frame(tally):
    expected = {
        "truth/share": 2 / 8,
        "mask/iou": 2 / 3,
        "mask/average_precision": 0.5 * 1 + 0.5 * 2 / 3,
        "mask/stability": 2 / 3,
        "attribution/average_precision": 0.5 * 1 + 0.5 * 2 / 8,
        "attribution/foreground_mass": 3 / 4,
        "attribution/pointing": 1,
        "reconstruction/foreground_error": 10 / 2,
        "reconstruction/background_error": 36 / 18,
    }
    means = tally.means()
    assert {name: means[name] for name in expected} == pytest.approx(expected)


def test_q_falls_with_the_one_bright_pixel(tally):
    # The frame's mean is 10: without its one bright pixel its red values sum to 10, whole or blank to 80.
    deletion, insertion = (tally.curves()[f"attribution/{kind}"] for kind in ("deletion", "insertion"))
    assert deletion[0] == 80 and deletion[1] == 10 and deletion[-1] == pytest.approx(80)
    assert insertion[0] == pytest.approx(80) and insertion[1] == 150 and insertion[-1] == 80
    assert tally.means()["attribution/deletion_area"] is None
