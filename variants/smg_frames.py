"""SMG whose encoders look at each frame by itself before they look at all (an idea of SimGRL, 2024)."""

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

from common.config.schema import Count
from common.errors import UserError
from common.rl.networks import Activation, Layers, Trunk, convolved
from smg import agent
from smg.agent import SMG


class Settings(agent.Settings):
    """The `smg:` section; configs/agents/smg_frames.yaml documents the key that is new."""

    frames_apart: Count


class SMGFrames(SMG):
    """SMG of whose encoders, f⁺ and f⁻, the first convolutions see one frame at a time."""

    Settings = Settings
    settings: Settings

    def new_trunk(self) -> Trunk:
        env, network, first = self.config.env, self.config.network, self.settings.frames_apart
        if first >= len(network.strides):
            raise UserError(
                f"smg.frames_apart is {first}, but one of the encoder's {len(network.strides)} convolutions "
                "must see all frames; set it lower"
            )
        return FramewiseTrunk(first, env.frames, network.filters, network.strides, env.image_size)


class FramewiseTrunk(Trunk):
    """A trunk of whose convolutions the first see each frame by itself; the next sees their features stacked.

    Args:
        first: how many see one frame; 0 makes it a `Trunk`.
        frames: RGB frames of an input.
        filters, strides, image_size: see `Trunk`.
    """

    def __init__(
        self, first: int, frames: int, filters: int, strides: Sequence[int], image_size: int
    ) -> None:
        super().__init__(3 * frames, filters, strides, image_size)
        self.first = first
        self.frames = frames
        for index, channels in ((0, 3), (first, frames * filters)) if first else ():
            replaced = self.convolutions[index]
            self.convolutions[index] = type(replaced)(channels, filters, 3, stride=strides[index])

    def convolve(self, layers: Layers, pixels: Tensor, relu: Activation) -> Tensor:
        if self.first == 0:
            return super().convolve(layers, pixels, relu)
        # Channels are last while frames are taken apart and put together, forward and backward, as the
        # convolutions want them: each of the two is then one copy instead of two.
        frames = rearrange(pixels, "b (f c) h w -> (b f) h w c", f=self.frames)
        features = relu(convolved(layers[: self.first], rearrange(frames, "n h w c -> n c h w"), relu))
        features = rearrange(features, "n c h w -> n h w c")
        together = rearrange(features, "(b f) h w c -> b h w (f c)", f=self.frames)
        return convolved(layers[self.first :], rearrange(together, "b h w c -> b c h w"), relu)
