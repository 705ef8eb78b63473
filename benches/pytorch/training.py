"""Loss, optimiser and learning rate of the scribble baselines, as PyTorch users write them.

Not to be run; imported by `step.py` and `agreement.py`.
"""

import torch
from torch.nn import functional as F


def partial_cross_entropy(logits, label, ignore):
    """Mean over the annotated pixels of this batch; `label` [N, H, W], `ignore` where nobody drew."""
    return F.cross_entropy(logits, label, ignore_index=ignore)


def sgd(parameters, base_lr):
    """The optimiser of the scribble baselines."""
    return torch.optim.SGD(parameters, lr=base_lr, momentum=0.9, weight_decay=1e-4)


def poly_lr(base_lr, step, total_steps):
    """Rate in force during `step` (from 0). The reference sets it after the step with the counter
    not yet increased, so that it lags by one."""
    return base_lr * (1.0 - max(step - 1, 0) / total_steps) ** 0.9


def set_lr(optimizer, lr):
    """Changes the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
