"""Train an agent in a loop of one's own.

python examples/own_loop.py [AGENT] [AGENT_STEPS]
"""

import sys

import torch

from common.config.loading import load
from common.run.build import build_agent, build_env, build_images, build_replay
from common.run.device import resolve_auto

name, steps = sys.argv[1] if len(sys.argv) > 1 else "drq", int(sys.argv[2]) if len(sys.argv) > 2 else 400
config = resolve_auto(load(name, "walker_walk", "smoke", overrides=[f"train.steps={steps}"]))
env = build_env(config)
agent = build_agent(config, env.action_size, build_images(config))
replay = build_replay(config, env.action_size)

metrics = {}
obs, _ = env.reset()
replay.start_episode(obs)
for step in range(steps):
    if step < config.train.random_steps:
        action = env.action_space.sample()
    else:
        action = agent.act(torch.from_numpy(obs)[None].to(agent.device), sample=True)[0].cpu().numpy()
    obs, reward, terminated, truncated, _ = env.step(action)
    replay.add(action, reward, obs, terminated)
    if step >= config.train.random_steps:
        metrics = agent.update(replay.sample(agent.batch_size(step)), step)
    if terminated or truncated:
        print(f"step {step}:", *(f"{name} {value.item():.2f}" for name, value in metrics.items()))
        obs, _ = env.reset()
        replay.start_episode(obs)
