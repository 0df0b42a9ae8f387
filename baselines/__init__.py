"""The agents that the papers compare with, each on the soft actor-critic of `common.rl.sac`."""
