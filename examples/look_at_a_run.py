"""Roll out a trained agent under a visual shift and see what it attends to.

python examples/look_at_a_run.py [RUN_DIR] [PICTURE]
"""

import sys

import matplotlib.pyplot as plt
import torch

from common.rl.frames import apart
from common.run.build import build_evaluation_env
from common.run.evaluate import mean_actions
from common.run.trained import load_run

folder, picture = [*sys.argv[1:], *["results/laptop/walker_stand-smg-seed0", "look.png"][len(sys.argv) - 1 :]]
agent, config, step = load_run(folder)
env = build_evaluation_env(config, "video_hard")
obs, _ = env.reset(options={"evaluation": 0, "episode": 0, "episodes": 1})  # the first that `smg eval` plays
total, ended = 0.0, False
while not ended:
    action = mean_actions(agent, obs[None])[0]
    obs, reward, terminated, truncated, _ = env.step(action)
    total, ended = total + reward, terminated or truncated
print(f"{config.agent} after {step} steps returns {total:.0f}")

shown = agent.explain(torch.from_numpy(obs)[None], torch.from_numpy(action)[None])
panels = {"observation": apart(torch.from_numpy(obs)[None])[0, -1].permute(1, 2, 0)}
panels["attribution"] = apart(shown["attribution"])[0, -1].abs().amax(0)
if "mask" in shown:  # SMG
    panels["mask"] = shown["mask"][0, -1]
figure, axes = plt.subplots(1, len(panels), squeeze=False)
for axis, (name, image) in zip(axes[0], panels.items(), strict=True):
    axis.imshow(image.numpy())
    axis.set(title=name, xticks=[], yticks=[])
figure.savefig(picture)
