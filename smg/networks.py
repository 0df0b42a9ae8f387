"""SMG's separated models: two image branches and the inverse dynamics of the foreground."""

from typing import NamedTuple

from einops import rearrange
from torch import Tensor, nn

from common.networks import FrameDecoder, Projection, Trunk


class Foreground(NamedTuple):
    """g⁺'s output for a frame stack."""

    image: Tensor
    """o⁺ (B, 3F, H, W), 0–255."""
    mask: Tensor
    """M (B, F, H, W) in (0, 1)."""


class ForegroundDecoder(FrameDecoder):
    """g⁺: latent z⁺ → foreground image and mask; its decoder has four output channels, RGB and mask."""

    def images(self, latent: Tensor) -> Foreground:
        """(B, latent) → o⁺ and M."""
        batch = len(latent)
        channels = self(latent).sigmoid()  # (B·F, 4, H, W)
        return Foreground(
            255 * rearrange(channels[:, :3], "(b f) c h w -> b (f c) h w", b=batch),
            rearrange(channels[:, 3], "(b f) h w -> b f h w", b=batch),
        )


class BackgroundDecoder(FrameDecoder):
    """g⁻: latent z⁻ → background image."""

    def images(self, latent: Tensor) -> Tensor:
        """(B, latent) → o⁻ (B, 3F, H, W), 0–255."""
        return 255 * rearrange(self(latent).sigmoid(), "(b f) c h w -> b (f c) h w", b=len(latent))


class BackgroundEncoder(nn.Module):
    """f⁻, of the foreground encoder's shape."""

    def __init__(self, trunk: Trunk, projection: Projection) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = projection

    def forward(self, obs: Tensor) -> Tensor:
        """(B, 3F, H, W) → z⁻ (B, latent)."""
        return self.projection(self.trunk(obs))
