import math
import os
import signal
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import common.run.train
from common.config.loading import load, load_run_config
from common.config.registry import AGENTS, agent_class
from common.rl.batch import Batch, Inputs
from common.rl.diagnosis import ROWS, Diagnosis, FiringUnits, first_rows, soft_returns
from common.rl.networks import MLP, Trunk
from common.run.console import Console
from common.run.device import resolve_auto
from common.run.train import train
from sgqn.agent import SGQN
from smg.agent import SMG
from tests import runs
from tests.baselines.batches import random_batch
from tests.synchronisation import ForbidSynchronisation

FULL = 2000
TINY = ("env.image_size=24", "network.strides=[2,1,1]")
QUICK = (
    "train.steps=24",
    "train.random_steps=8",
    "train.burst_updates=3",
    "train.batch=4",
    "train.log_every=4",
    "eval.every=24",
    "eval.shifts=[train]",
    "env.episode_steps=40",
    *TINY,
    "data.overlay_bank=2",
    "checkpoint.every=1h",
)


def build(name, *overrides):
    """A small agent, and a prepared update of it in which everything runs."""
    small = ["amp=off", "compile=eager", "device=cpu", *TINY, *overrides]
    small += ["env.render_size=30"] * agent_class(name).CROPS
    config = resolve_auto(load(name, "walker_walk", "smoke", overrides=small))
    torch.manual_seed(0)
    size = config.env.image_size
    agent = agent_class(name)(config, 3, lambda count: torch.rand(count, 3, size, size) * 255)
    plan = agent.schedule(FULL)
    batch = random_batch(agent.batch_size(FULL), config.env.frame_size)
    return agent, *agent.prepare(batch, plan)


# What is measured


def test_units_that_never_fire_are_dead():
    mlp = MLP(2, 4, 1)
    trunk = Trunk(1, 3, [1, 1], 8)
    with torch.no_grad():
        mlp.linear0.bias.copy_(torch.tensor([1e3, -1e3, 1e3, -1e3]))  # 2 of 4 dead
        mlp.linear1.bias.copy_(torch.tensor([-1e6, 1e6, 1e6, 1e6]))  # 1 of 4
        trunk.get_parameter("convolutions.0.bias").copy_(torch.tensor([-1e3, 1e3, 1e3]))  # 1 of 3
    other = MLP(2, 4, 1)
    with FiringUnits({mlp: "mlp"} | {part: "trunk" for part in trunk.modules()}) as units:
        mlp(torch.randn(5, 2))
        trunk(torch.randint(0, 256, (5, 1, 8, 8)))
        other(torch.randn(5, 2))  # not watched
        F.relu(torch.full((5, 7), -1.0))  # in no network
    assert {name: share.item() for name, share in units.dead().items()} == {
        "mlp": pytest.approx(3 / 8),
        "trunk": pytest.approx(1 / 3),
    }
    assert not mlp._forward_hooks and not mlp._forward_pre_hooks


def test_a_unit_that_fires_in_any_pass_is_alive():
    layer = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    with torch.no_grad():
        layer.get_parameter("0.weight").copy_(torch.tensor([[1.0], [-1.0]]))
        layer.get_parameter("0.bias").zero_()
    for values, dead in (([1.0], 1 / 2), ([1.0, -1.0], 0)):
        with FiringUnits(dict.fromkeys(layer.modules(), "layer")) as units:
            for value in values:
                layer(torch.tensor([[value]]))
        assert units.dead()["layer"] == dead


@pytest.mark.parametrize("name", AGENTS)
def test_examined_terms_are_those_that_the_update_minimises(name):
    # Rates so small that no weight moves: the parts of an update all see the agent as it was.
    still = [f"optim.{part}.lr=1e-30" for part in ("actor", "critic", "temperature", "auxiliary")]
    agent, inputs, plan = build(name, *still)
    terms = agent.encoder_losses(inputs, plan)
    logged = agent.step(inputs, plan)
    assert set(terms) == set(agent.LOSSES)
    for term, loss in terms.items():
        torch.testing.assert_close(loss.detach(), logged[f"loss/{term}"], msg=term)


@pytest.mark.parametrize("name", ["sac", "sgqn", "smg", "svea_soda"])
def test_gradient_norms_are_those_of_each_weighted_term_alone(name):
    agent, inputs, plan = build(name)
    measured = Diagnosis(agent, 10).examine(inputs, plan)
    shared = [*agent.critic.trunk.parameters(), *agent.critic.projection.parameters()]

    def alone(choose):
        loss = choose(agent.encoder_losses(inputs, plan))
        agent.critic.zero_grad()
        loss.backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in shared]

    total = [torch.zeros_like(parameter) for parameter in shared]
    for term in agent.LOSSES:
        gradients = alone(lambda terms, term=term: agent.weights[term] * terms[term])
        norm = math.sqrt(sum(gradient.double().square().sum() for gradient in gradients))
        if norm == 0:  # SMG's background branch has an encoder of its own
            assert term == "background" and f"gradient/{term}" not in measured
        else:
            assert measured[f"gradient/{term}"].item() == pytest.approx(norm, rel=1e-4)
        total = [one + two for one, two in zip(total, gradients, strict=True)]
    for one, two in zip(total, alone(agent.weighted), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_latent_norm_and_saturation_against_counts_by_hand():
    agent, inputs, plan = build("sac")
    with torch.no_grad():
        agent.actor.mlp.linear2.bias[:3] = torch.tensor([2.0, 0.0, -4.0])
        latent = agent.critic.encode(inputs["obs"]).numpy()
        mean, log_std = agent.actor(agent.critic.trunk(inputs["obs"]))
        _, logged = agent.actor_losses(inputs)
    measured = Diagnosis(agent, 10).examine(inputs, plan)
    assert measured["encoder/latent_norm"].item() == pytest.approx(np.sqrt((latent**2).mean()))
    actions = np.tanh(mean.numpy() + inputs["noise_obs"].numpy() * np.exp(log_std.numpy()))
    saturated = sum(abs(component) > 0.99 for action in actions for component in action)
    assert 0 < saturated < actions.size
    assert logged["policy/saturation"].item() == pytest.approx(saturated / actions.size)


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("name", ["sac", "rad"])
def test_soft_returns_against_a_plain_loop(name, terminated):
    agent, _, _ = build(name, "sac.discount=0.9", "train.batch=3")  # in several parts
    length = 7
    episode = random_batch(length, agent.config.env.frame_size)
    episode = Batch(
        torch.cat([episode.obs[:1], episode.next_obs[:-1]]),
        episode.action,
        episode.reward,
        episode.next_obs,
        torch.tensor([[1.0]] * (length - 1) + [[1.0 - terminated]]),
    )
    noise = torch.randn(length + 1, 3, generator=torch.Generator().manual_seed(5))
    alpha = agent.log_alpha.exp().item()

    @torch.no_grad()
    def drawn(step):
        """−log π of a draw at next_obs[step], and Q of it."""
        obs = agent.policy_input(episode.next_obs[step : step + 1])
        mean, log_std = agent.actor(agent.critic.trunk(obs))
        policy = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(mean.double(), log_std.double().exp()),
            [torch.distributions.TanhTransform()],
        )
        action = torch.tanh(mean.double() + noise[step + 1] * log_std.double().exp())
        q = min(head.item() for head in agent.critic(obs, action.float()))
        return -policy.log_prob(action).sum().item(), q

    following, bonus = [0.0] * (length + 1), [0.0] * (length + 1)
    following[-1] = drawn(length - 1)[1]
    for step in reversed(range(length)):
        goes_on = 0.9 * episode.not_done[step].item()
        entropy, _ = drawn(step)
        bonus[step] = goes_on * (alpha * entropy + bonus[step + 1])
        following[step] = episode.reward[step].item() + goes_on * (alpha * entropy + following[step + 1])
    with torch.no_grad():
        values = [
            min(head.item() for head in agent.critic(agent.policy_input(obs[None]), action[None]))
            for obs, action in zip(episode.obs, episode.action, strict=True)
        ]

    returns, bonuses, q = soft_returns(agent, episode, seed=5)
    np.testing.assert_allclose(returns, following[:-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bonuses, bonus[:-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(q, values, rtol=1e-4, atol=1e-5)
    metrics = Diagnosis(agent, 10).episode(episode, seed=5)
    first = range(4)  # of 7
    assert metrics["critic/bias"].item() == pytest.approx(
        np.mean([values[step] - following[step] for step in first]), rel=1e-3, abs=1e-4
    )


# When, and without a trace


@pytest.mark.parametrize("every", [1, 5, 10, 500])
@pytest.mark.parametrize("period", [1, 2, 3])
def test_due_once_per_line_at_the_last_whole_update_before_it(every, period):
    agent, _, _ = build("sac")
    agent.auxiliary_period = lambda: period
    diagnosis = Diagnosis(agent, every)
    for line in range(every, 3000, every):
        due = [step for step in range(line - every, line) if diagnosis.due(step)]
        assert due == [step for step in range(line - every, line) if step % period == 0][-1:]


@pytest.mark.parametrize("name", ["sac", "sgqn", "smg", "svea_soda"])
def test_an_examination_leaves_nothing_behind_and_never_waits(name):
    agent, inputs, plan = build(name)
    diagnosis = Diagnosis(agent, 10)
    episode = random_batch(8, agent.config.env.frame_size)
    state, before = torch.get_rng_state(), [tensor.clone() for tensor in agent.state_tensors().values()]
    with ForbidSynchronisation():
        metrics = diagnosis.examine(inputs, plan) | diagnosis.episode(episode, seed=0)
    assert all(value.dim() == 0 and not value.requires_grad for value in metrics.values())
    assert torch.equal(state, torch.get_rng_state())
    for one, two in zip(before, agent.state_tensors().values(), strict=True):
        assert torch.equal(one, two)
    assert all(parameter.grad is None for parameter in agent.parameters())


def test_a_loss_that_draws_draws_nothing_from_the_run(monkeypatch):
    agent, inputs, plan = build("sac")
    plain = type(agent).critic_losses

    def noisy(self, inputs):
        torch.rand(3)
        return plain(self, inputs)

    monkeypatch.setattr(type(agent), "critic_losses", noisy)
    before = torch.get_rng_state()
    Diagnosis(agent, 10).examine(inputs, plan)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_part_of_a_large_batch_is_enough():
    agent, inputs, plan = build("smg", f"train.batch={2 * ROWS}")
    diagnosis = Diagnosis(agent, 10)
    half = first_rows(inputs, ROWS)
    torch.testing.assert_close(diagnosis.examine(inputs, plan), diagnosis.examine(half, plan))


def test_compiled_methods_are_not_used(monkeypatch):
    eager, inputs, plan = build("smg")

    def compiled(part, **how):
        return lambda *_: pytest.fail("a compiled method allows one backward pass only")

    monkeypatch.setattr(torch, "compile", compiled)
    agent, _, _ = build("smg", "compile=default")
    agent.load_state_dict(eager.state_dict())
    measured = [Diagnosis(each, 10).examine(inputs, plan) for each in (eager, agent)]
    torch.testing.assert_close(*measured)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sac", "sgqn", "smg"])
def test_a_gpu_measures_the_same(name):
    agent, inputs, plan = build(name)
    config = agent.config.model_copy(update={"device": "cuda"})
    moved = agent_class(name)(config, 3, agent.images, "cuda")
    moved.load_state_dict(agent.state_dict())
    there = Diagnosis(moved, 10).examine(
        cast(Inputs, {key: value.cuda() for key, value in inputs.items()}), plan
    )
    for metric, value in Diagnosis(agent, 10).examine(inputs, plan).items():
        torch.testing.assert_close(there[metric].cpu(), value, rtol=1e-3, atol=1e-3, msg=metric)


@pytest.mark.slow
def test_training_does_not_notice_how_often_it_is_diagnosed(tmp_path):
    often = runs.run(tmp_path / "often", "smg", *QUICK, "train.log_every=2")
    seldom = runs.run(tmp_path / "seldom", "smg", *QUICK, "train.log_every=12")
    lines = [line for line in runs.metrics(seldom) if line["step"] in (12, 24)]
    assert len(lines) == 2 and "gradient/bellman" in lines[0] and "critic/bias" in lines[1]
    assert all(line in runs.metrics(often) for line in lines)
    assert runs.evaluations(often) == runs.evaluations(seldom)


# Warnings


@pytest.fixture
def said(monkeypatch):
    """What a run says to the console that begins with "warning"."""
    lines = []

    class Listening(Console):
        def say(self, line):
            lines.extend([line] * line.startswith("warning"))

    monkeypatch.setattr(common.run.train, "Console", Listening)
    return lines


class WhiteAndSaturated(SMG):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        with torch.no_grad():
            self.foreground.get_parameter("decoder.conv2.bias")[3] = 1e3
            self.actor.mlp.linear2.bias[: self.action_size] = 100


class Black(SGQN):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        with torch.no_grad():
            self.predictor.get_parameter("conv2.bias").fill_(-1e3)


@pytest.mark.slow
def test_a_white_mask_and_a_saturated_policy_are_named_once_in_a_run_of_two_sessions(
    tmp_path, monkeypatch, said
):
    monkeypatch.setattr("common.run.build.agent_class", lambda _: WhiteAndSaturated)
    stop = iter([False] * 17 + [True] + [False] * 100)
    listening = common.run.train.Console
    monkeypatch.setattr(
        listening, "step", lambda *_: os.kill(os.getpid(), signal.SIGTERM) if next(stop) else None
    )
    folder = tmp_path / "run"
    config = runs.smoke(folder, "smg", *QUICK)
    assert train(config) == 75
    assert len(said) == 2
    assert train(load_run_config(folder), resume=folder) == 0
    mask, policy = sorted(said)
    assert mask.startswith("warning at step 12: models/mask_mean is 1, the mask is all white (expected 0.06)")
    assert policy.startswith(
        "warning at step 12: policy/saturation is 1, nearly every action is at its limit"
    )
    assert [line["step"] for line in runs.metrics(folder) if line.get("models/mask_mean") == 1] == [
        12,
        16,
        20,
        24,
    ]


def test_a_black_mask_is_named(tmp_path, monkeypatch, said):
    monkeypatch.setattr("common.run.build.agent_class", lambda _: Black)
    runs.run(tmp_path / "run", "sgqn", *QUICK, "train.steps=12")
    [line] = said
    assert line.startswith("warning at step 12: saliency/predicted_mean is 0, the mask is all black")


@pytest.mark.parametrize(
    ("mean", "colour"), [(0.0059, "black"), (0.0061, None), (0.905, None), (0.907, "white")]
)
def test_a_mask_is_sick_when_a_tenth_of_what_is_expected_is_left(mean, colour):
    agent, _, _ = build("smg", "smg.rho=0.06")
    diagnosis = Diagnosis(agent, 10)
    ratios, warnings = diagnosis.judge({"models/mask_mean": mean})
    assert ratios == {"models/mask_mean_over_expected": pytest.approx(mean / 0.06)}
    assert [f"all {colour}" in line for line in warnings] == [True] * (colour is not None)
    assert diagnosis.judge({"models/mask_mean": mean})[1] == []
