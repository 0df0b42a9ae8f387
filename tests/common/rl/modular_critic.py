"""The critic as Captum's guided methods need it."""

import torch
from torch import nn


class ModularCritic(nn.Module):
    """Q₁ with a module per ReLU, which is where Captum hooks in."""

    def __init__(self, critic):
        super().__init__()
        self.critic = critic
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(len(critic.trunk.convolutions) + 1))

    def forward(self, pixels, action):
        features, relus = pixels, iter(self.relus)
        for index, convolution in enumerate(self.critic.trunk.convolutions):
            features = convolution(features if index == 0 else next(relus)(features))
        head = self.critic.q1
        latent = torch.cat([self.critic.projection(features.flatten(1)), action], 1)
        return head.linear2(next(relus)(head.linear1(next(relus)(head.linear0(latent)))))
