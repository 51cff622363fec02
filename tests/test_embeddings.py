"""Sums of embeddings: torch's own numbers, and its gradients but for the order in which they are added."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from bistable_rl.agents.embeddings import FEW, sum_of_embeddings


def tables() -> list[nn.Embedding]:
    torch.manual_seed(0)
    return [nn.Embedding(256, 8, dtype=torch.float64) for _ in range(3)]


def by_torch(categories: Tensor, embeddings: Iterable[nn.Module]) -> Tensor:
    return torch.stack([table(row) for table, row in zip(embeddings, categories, strict=True)]).sum(0)


@pytest.mark.parametrize("rows", [1, 6, FEW, FEW + 1, 256])
def test_numbers_and_gradients_are_torchs(rows: int) -> None:
    ours, theirs = tables(), tables()
    categories = torch.randint(0, rows, (500, 3)).t()
    categories[:, 0] = rows - 1
    weight = torch.randn(500, 8, dtype=torch.float64)
    found, expected = sum_of_embeddings(categories, ours), by_torch(categories, theirs)
    assert torch.equal(found, expected)
    assert (type(found.grad_fn).__name__ == "_SumBackward") == (rows <= FEW)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.weight.grad, other.weight.grad)
    with torch.no_grad():
        assert torch.equal(sum_of_embeddings(categories, ours), found)


def test_transforms_of_torch_follow_it() -> None:
    embeddings = nn.ModuleList(tables())
    view = torch.randint(0, 5, (2, 3, 40))

    def total(parameters: dict[str, Tensor], categories: Tensor) -> Tensor:
        return torch.func.functional_call(Summed(embeddings), parameters, (categories,)).sin().sum()

    parameters = {f"tables.{name}": p.detach() for name, p in embeddings.named_parameters()}
    by_copy = torch.func.vmap(torch.func.grad(total), (None, 0))(parameters, view)
    for i, categories in enumerate(view):
        embeddings.zero_grad()
        by_torch(categories, embeddings).sin().sum().backward()
        for name, parameter in embeddings.named_parameters():
            torch.testing.assert_close(by_copy[f"tables.{name}"][i], parameter.grad)


class Summed(nn.Module):
    """The sum as a module."""

    def __init__(self, tables: nn.ModuleList) -> None:
        super().__init__()
        self.tables = tables

    def forward(self, categories: Tensor) -> Tensor:
        return sum_of_embeddings(categories, self.tables)
