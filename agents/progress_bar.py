"""The bar of `learn(progress_bar=True)` in a notebook: one line of text that stays."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from bistable_rl.runs.progress import NOTEBOOK_WIDTH


class NotebookBar(BaseCallback):
    """SB3's ProgressBarCallback without rich: a notebook redraws rich's bar at every step, or does not show it."""

    def _on_training_start(self) -> None:
        total = self.locals["total_timesteps"] - self.model.num_timesteps
        self._bar = tqdm(total=total, unit=" steps", unit_scale=True, ncols=NOTEBOOK_WIDTH)

    def _on_step(self) -> bool:
        self._bar.update(self.training_env.num_envs)
        return True

    def _on_training_end(self) -> None:
        self._bar.close()
