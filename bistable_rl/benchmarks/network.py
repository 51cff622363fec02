"""The network of the benchmarks: recurrent layers and a linear head."""

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bistable_rl.benchmarks.tasks.task import Task
from bistable_rl.rnn import make_rnn
from bistable_rl.runs.schema import NetworkConfig


class Network(nn.Module):
    """Recurrent layers of one cell and a linear head, initialised as in the paper (Keras: Glorot-uniform, bias 0).

    Args:
        config: Cell and sizes.
        task: The task, for the widths of input and answer and the number of answers.

    Raises:
        ValueError: If there is no such cell, or it has no such option.
    """

    def __init__(self, config: NetworkConfig, task: Task) -> None:
        super().__init__()
        self.answers = task.answers
        self.rnn = make_rnn(
            config.cell, task.input_size, config.hidden_size, config.num_layers, cell_kwargs=config.cell_kwargs
        )
        self.head = nn.Linear(config.hidden_size, task.output_size)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor | PackedSequence) -> Tensor:
        """Return the answers of the last K steps (K, B, O) to x (T, B, I), which may be packed if K is 1."""
        outputs, h_n = self.rnn(x)
        if self.answers == 1:
            return self.head(h_n[-1:, :, : self.rnn.hidden_size])  # the last output of each sequence
        return self.head(outputs[-self.answers :])
