"""NaN and infinity in a rollout or an update raise an error that says where they arose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bistable_rl.agents.buffer import RolloutBuffer
from bistable_rl.agents.obs import obs_parts
from bistable_rl.errors import NonFiniteError


def check_rollout(buffer: RolloutBuffer, names: Sequence[str], num_timesteps: int) -> None:
    """Check tensors of the buffer, before their NaN or infinity reaches the gradient and seems to arise there.

    Args:
        buffer: The rollout.
        names: The tensors: "observations", or attributes of the buffer.
        num_timesteps: Environment steps so far, including those of the rollout.

    Raises:
        NonFiniteError: If a number is NaN or infinite; the message names the step and the copy.
    """
    for name in names:
        observed = [part[buffer.context :] for part in obs_parts(buffer.obs)]
        for tensor in observed if name == "observations" else [getattr(buffer, name)]:
            if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
                continue
            step, copy = torch.argwhere(~torch.isfinite(tensor))[0][:2].tolist()
            value = float(tensor[step, copy].sum())
            raise NonFiniteError(
                f"{name} became {value} in step {step} of environment copy {copy}, in the update after "
                f"{num_timesteps - buffer.rewards.numel()} environment steps"
            )


def check_reward_scale(buffer: RolloutBuffer, num_timesteps: int) -> None:
    """Check that finite rewards are not so large that the squared returns, in the value loss, become infinite.

    Raises:
        NonFiniteError: If the rewards are too large; the message says how large they are.
    """
    largest = buffer.rewards.abs().max()
    rewards_alone = torch.isfinite(largest) & torch.isfinite(buffer.values).all()  # otherwise the cause is elsewhere
    if bool(rewards_alone & ~torch.isfinite(buffer.returns.square().sum())):
        raise NonFiniteError(
            f"rewards of up to {float(largest):g} are too large for float32: the value loss, which squares returns, "
            f"became infinite in the rollout that ends at {num_timesteps} steps; scale rewards to about 1, "
            "for example by stable_baselines3's VecNormalize or gymnasium's TransformReward"
        )


def non_finite_error(
    policy: nn.Module,
    what: str,
    tensor_of: Callable[[nn.Parameter], Tensor | None],
    num_timesteps: int,
    largest_reward: float,
) -> NonFiniteError:
    """Return the error that names the first parameter with a NaN or an infinity in it, or in its gradient.

    Args:
        policy: Holds the parameters.
        what: Text before the parameter's name: "the gradient of ", or nothing.
        tensor_of: Returns the tensor to check, for a parameter.
        num_timesteps: Environment steps so far.
        largest_reward: The reward with the largest absolute value.
    """
    for name, parameter in policy.named_parameters():
        tensor = tensor_of(parameter)
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            return NonFiniteError(
                f"{what}{name} became NaN or infinite in the update at {num_timesteps} steps; "
                "a smaller learning_rate or max_grad_norm usually cures this"
            )
    return NonFiniteError(
        f"{what}the network as a whole overflowed in the update at {num_timesteps} steps, with rewards up to "
        f"{largest_reward:g}; smaller rewards or a smaller learning_rate usually cure this"
    )
