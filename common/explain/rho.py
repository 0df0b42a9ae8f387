"""`smg rho`: how much of a task's picture is foreground, and what that suggests for ρ and the quantile."""

from pathlib import Path

from common import gl
from common.config.loading import load
from common.config.schema import Config
from common.run.device import for_trained
from common.run.foreground import Share, foreground_share
from common.run.trained import load_agent


def rho(config: Config, steps: int, run: tuple[Config, Path] | None) -> int:
    """Print the foreground's share under random actions and, if given, under the policy of a run.

    Args:
        config: of any agent on the task; its `env:` says what is measured.
        steps: agent steps for each policy.
        run: configuration and folder.

    Raises:
        UserError: the run has no checkpoint.
    """
    gl.select_backend()
    if run is not None:
        config = run[0]  # frames of one size and camera for both policies
    shares = {"random actions": foreground_share(config, steps)}
    if run is not None:
        agent, _, step = load_agent(for_trained(run[0]), run[1], "measure")
        label = f"{run[0].agent} after {step} steps"
        shares[label] = foreground_share(run[0], steps, policy=agent)
    print(table(config, steps, shares))
    return 0


def table(config: Config, steps: int, shares: dict[str, Share]) -> str:
    """The shares by policy, with what they suggest and what configs/ has for the task."""
    env = config.env
    lines = [
        f"{config.task}, camera {env.camera}, env.model {env.model}, {env.frame_size}x{env.frame_size}, "
        f"{steps} agent steps",
        f"{'policy':<24} {'foreground':>16} {'smg.rho':>8} {'sgqn.quantile':>14}",
    ]
    for label, share in shares.items():
        measured = f"{share.mean:.4f}" + (f" ± {share.deviation:.4f}" if steps > 1 else "")
        lines.append(f"{label:<24} {measured:>16} {share.rho:>8} {share.quantile:>14}")
    usual = {agent: load(agent, config.task, "paper").settings for agent in ("smg", "sgqn")}
    lines.append(f"{'configs/':<24} {'':>16} {usual['smg'].rho:>8} {usual['sgqn'].quantile:>14}")
    scene = "scene (floor, walls, terrain)"
    lines.append(f"foreground: share of pixels that show neither sky nor {scene}, mean ± sd over frames")
    return "\n".join(lines)
