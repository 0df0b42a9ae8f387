"""SMG's separated models: two image branches and the inverse dynamics of the foreground."""

from typing import NamedTuple

from torch import Tensor, nn

from common.rl.networks import FrameDecoder, Projection, Trunk


class Foreground(NamedTuple):
    """g⁺'s output for a frame stack."""

    image: Tensor
    """o⁺ (B, F, 3, H, W), 0–255."""
    mask: Tensor
    """M (B, F, 1, H, W) in (0, 1)."""


class ForegroundDecoder(FrameDecoder):
    """g⁺: latent z⁺ → foreground image and mask; its decoder has four output channels, RGB and mask."""

    def images(self, latent: Tensor, frames: Tensor | None = None) -> Foreground:
        """(B, latent) → o⁺ and M, of all frames or those with these numbers (k,)."""
        channels = self(latent, frames).sigmoid().unflatten(0, (len(latent), -1))  # (B, F, 4, H, W)
        colours, mask = channels.split([3, 1], dim=2)
        return Foreground(255 * colours, mask)


class BackgroundDecoder(FrameDecoder):
    """g⁻: latent z⁻ → background image."""

    def images(self, latent: Tensor, frames: Tensor | None = None) -> Tensor:
        """(B, latent) → o⁻ (B, F, 3, H, W), 0–255, of all frames or those with these numbers (k,)."""
        return 255 * self(latent, frames).sigmoid().unflatten(0, (len(latent), -1))


class BackgroundEncoder(nn.Module):
    """f⁻, of the foreground encoder's shape."""

    def __init__(self, trunk: Trunk, projection: Projection) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = projection

    def forward(self, *views: Tensor) -> Tensor:
        """Views (B, 3F, H, W), encoded as one batch → z⁻ (views·B, latent)."""
        return self.projection(self.trunk(*views))
