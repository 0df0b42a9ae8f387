import numpy as np
import pytest
import torch

from common import cli
from common.envs.benchmark import BenchmarkEnv
from common.envs.processes import EnvPool
from common.run import foreground
from common.run.derived import env_arguments
from common.run.foreground import mean_background
from common.run.masked import OwnMask, TrueMask, foreground_alone
from common.run.records import read_json_lines
from common.run.reevaluate import masked_table
from smg.agent import SMG
from tests import runs

SHORT = ("train.steps=21", "eval.every=21", "eval.shifts=[train,color_hard]", "env.episode_steps=40")


def test_the_background_stands_where_the_mask_is_not():
    obs = np.arange(2 * 6 * 2, dtype=np.uint8).reshape(1, 6, 2, 2)  # two frames of 2×2 pixels
    background = np.array([100, 150, 200], np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    mask = np.array([[[[1, 0], [0, 1]], [[0, 0], [1, 0]]]], bool)
    seen = foreground_alone(obs, mask, background)
    assert seen.dtype == np.uint8
    assert seen[0, :3].tolist() == [
        [[0, 100], [100, 3]],
        [[4, 150], [150, 7]],
        [[8, 200], [200, 11]],
    ]
    assert seen[0, 3:].tolist() == [
        [[100, 100], [14, 100]],
        [[150, 150], [18, 150]],
        [[200, 200], [22, 200]],
    ]


class Masked:
    """An agent whose mask of the older frame is a quarter and of the newer nothing; it notes what it sees."""

    device = torch.device("cpu")

    def mask(self, obs):
        return torch.tensor([0.25, 0.0])[:, None, None].expand(len(obs), 2, *obs.shape[2:])

    def act(self, obs, sample):
        self.seen = obs
        return torch.zeros(len(obs), 1)


def test_a_policy_acts_on_what_its_own_soft_mask_keeps():
    agent, obs = Masked(), torch.full((3, 6, 4, 4), 80, dtype=torch.uint8)
    background = np.full((3, 4, 4), 10, np.uint8)
    assert OwnMask(agent, background).act(obs, sample=False).shape == (3, 1)
    assert agent.seen.dtype == torch.uint8
    assert agent.seen[:, :3].unique().tolist() == [28]  # 80/4 + 10·3/4 = 27.5, to the even
    assert agent.seen[:, 3:].unique().tolist() == [10]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_true_masks_follow_every_frame_of_every_stack(tmp_path, processes):
    arguments = env_arguments(runs.smoke(tmp_path, "sac", "env.image_size=32", "env.episode_steps=20"))
    both = [arguments | {"shift": "color_hard", "seed": seed} for seed in (3, 4)]
    background = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    plain, masked = EnvPool(both, processes), TrueMask(both, processes, background)
    options = [{"evaluation": 0, "episode": 0, "episodes": 1}] * 2
    actions = np.random.default_rng(1).uniform(-1, 1, (5, 2, plain.action_size)).astype(np.float32)
    try:
        obs, (seen, _) = plain.reset([0, 1], options)[0], masked.reset([0, 1], options)
        history = [plain.segmentation([0, 1])] * 3
        for action in [None, *actions]:
            if action is not None:
                step = plain.step(action)
                obs, seen = step.obs, masked.step(action).obs
                ended = step.truncated.all()
                history = [*history[1:], plain.segmentation([0, 1])]
                if ended:
                    break
            for env in (0, 1):
                for frame in range(3):
                    part, truth = slice(3 * frame, 3 * frame + 3), history[frame][env]
                    assert 0 < truth.mean() < 0.5
                    assert np.array_equal(seen[env, part][:, truth], obs[env, part][:, truth])
                    assert np.array_equal(seen[env, part][:, ~truth], background[:, ~truth])
        assert ended
    finally:
        plain.close()
        masked.close()


def test_the_mean_background_is_that_of_the_training_frames_without_what_stands_before_it(tmp_path):
    config = runs.smoke(tmp_path, "sac", "env.image_size=32", "env.episode_steps=20", "seed=5")
    env = BenchmarkEnv(**env_arguments(config), shift="train", seed=5)
    env.reset()
    pixels = [[[] for _ in range(32)] for _ in range(32)]
    for count in range(1, 8):
        obs, *_ = env.step(np.zeros(6, np.float32))
        truth = env.segmentation()
        for row in range(32):
            for column in range(32):
                if not truth[row, column]:
                    pixels[row][column].append(obs[-3:, row, column].astype(float))
        if count == 5:  # an episode of 20 simulator steps, 4 for an action
            env.reset()
    env.close()
    found = mean_background(config, runs.Still(6), steps=7)
    assert found.shape == (3, 32, 32)
    shown = [(row, column) for row in range(32) for column in range(32) if pixels[row][column]]
    for row, column in shown:
        np.testing.assert_allclose(found[:, row, column], np.mean(pixels[row][column], 0), atol=0.501)
    assert len(shown) > 0.8 * 32 * 32


def test_what_is_always_hidden_takes_the_backgrounds_mean_colour(tmp_path, monkeypatch):
    frames = [np.full((3, 48, 48), value, np.uint8) for value in (10, 40)]
    truths = np.zeros((2, 48, 48), bool)
    truths[:, 0, 0] = True  # hidden throughout
    truths[1, 1:] = True  # hidden in the second frame
    monkeypatch.setattr(foreground, "_training_frames", lambda *_: zip(frames, truths, strict=True))
    found = mean_background(runs.smoke(tmp_path, "sac", "env.image_size=48"), runs.Still(6))
    assert (found[:, 1:] == 10).all() and (found[:, 0, 1:] == 25).all()
    first, second = 48 * 48 - 1, 47  # pixels of background
    assert (found[:, 0, 0] == round((10 * first + 40 * second) / (first + second))).all()


def test_the_table_pairs_episodes():
    def returns(*values):
        return [{"shift": "video_hard", "return": value} for value in values]

    table = masked_table(returns(1.0, 3.0), {"learned": returns(2.0, 8.0), "truth": returns(1.0, 3.0)})
    [row] = [line for line in table.splitlines() if line.startswith("video_hard")]
    assert row.split()[1:] == ["2.0", "5.0", "(+3.0", "±", "2.8)", "2.0", "(+0.0", "±", "0.0)"]


def test_the_tables_columns_are_aligned_whatever_a_shifts_name():
    records = [{"shift": shift, "return": 1.0} for shift in ("train", "rotate_shift_hard")]
    lines = masked_table(records, {"truth": records}).splitlines()[1:4]
    assert len({len(line) for line in lines}) == 1
    observation = lines[0].index("observation") + len("observation")
    assert [line[:observation].split() for line in lines[1:]] == [
        ["train", "1.0"],
        ["rotate_shift_hard", "1.0"],
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.run(tmp_path_factory.mktemp("masked") / "run", "smg", *SHORT)


def evaluated(folder):
    records = read_json_lines(folder / "evaluations.jsonl")
    (folder / "evaluations.jsonl").unlink()
    return {
        mask: [record for record in records if record.get("mask") == mask]
        for mask in (None, "learned", "truth")
    }


@pytest.mark.slow
def test_a_mask_of_everything_changes_no_return(folder, monkeypatch, capsys):
    monkeypatch.setattr(foreground.mean_background, "__defaults__", (4,))
    monkeypatch.setattr(SMG, "mask", lambda self, obs: torch.ones(len(obs), 3, *obs.shape[2:]))
    assert cli.main(["eval", str(folder), "--masks", "learned", "--episodes", "2"]) == 0
    records = evaluated(folder)
    assert len(records["learned"]) == 4 and not records["truth"]
    assert [record | {"mask": "learned"} for record in records[None]] == records["learned"]
    assert "(+0.0 ± 0.0)" in capsys.readouterr().out


@pytest.mark.slow
def test_every_mask_has_records_of_its_own(folder, monkeypatch, capsys):
    monkeypatch.setattr(foreground.mean_background, "__defaults__", (4,))
    assert cli.main(["eval", str(folder), "--masks", "truth,learned"]) == 0
    records = evaluated(folder)
    for mask, found in records.items():
        assert [record["shift"] for record in found] == ["train", "color_hard"], mask
        assert {(record["step"], record["evaluation"], record["length"]) for record in found} == {(21, 0, 10)}
    assert len({tuple(record["return"] for record in found) for found in records.values()}) == 3
    assert "truth" in capsys.readouterr().out
    assert cli.main(["eval", str(folder)]) == 0
    assert evaluated(folder) == {None: records[None], "learned": [], "truth": []}


@pytest.mark.slow
def test_masks_that_there_are_not_are_refused(folder, tmp_path, capsys):
    assert cli.main(["eval", str(folder), "--masks", "learnt"]) == 2
    assert "unknown mask 'learnt'; did you mean 'learned'" in capsys.readouterr().err
    drq = runs.run(tmp_path / "run", "drq", *SHORT)
    assert cli.main(["eval", str(drq), "--masks", "learned"]) == 2
    assert "agent drq has no mask of its own; --masks truth takes" in capsys.readouterr().err
    assert not (drq / "evaluations.jsonl").exists()
