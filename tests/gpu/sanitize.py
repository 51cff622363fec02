"""Four small scans with their gradients on CUDA, for compute-sanitizer: odd sizes, resets, packed sequences."""

import torch
from torch.nn.utils.rnn import PackedSequence

from bistable_rl import kernels
from bistable_rl.rnn import make_rnn

for kind, units in (("brc", 21), ("nbrc", 21), ("lstm", 21), ("gru", 130)):
    torch.manual_seed(0)
    rnn = make_rnn(kind, 3, units, cell_kwargs={"learn_initial_state": True}, device="cuda")
    x = torch.randn(16, 3, device="cuda", requires_grad=True)
    sizes = torch.tensor([5, 5, 3, 2, 1])
    resets = PackedSequence(torch.rand(16, device="cuda") < 0.3, sizes)
    with kernels.use_backend("triton"):
        outputs, last = rnn(PackedSequence(x, sizes), None, resets)
        (outputs.data.sum() + last.sum()).backward()
    torch.cuda.synchronize()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all()), kind
    print(kind, "ran", flush=True)
