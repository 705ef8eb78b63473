"""Times saving and restoring weights and momentum with PyTorch, as many writers as ranks.

    mpirun -n 2 python checkpoint.py torch.save unet 5 DIR
    mpirun -n 2 python checkpoint.py "distributed.checkpoint, async" large 3 DIR

`torch.save` writes one file for each rank with its share of the tensors; `distributed.checkpoint` is
given the whole state on every rank, as under DistributedDataParallel, and shares the writing out
itself. All files are flushed to the disk. Rank 0 prints one JSON line with `stall` (training stands
still), `durable` (until everything is on the disk) and `restore`, lists of seconds of the slowest
rank. `cargo bench --bench checkpoint` calls this script. Needs torch.
"""

import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from unet import UNet

SIDE = 1024
MATRICES = 96


def tensors(model):
    """Weights and momentum by name."""
    if model == "unet":
        weights = {name: weight.detach() for name, weight in UNet().named_parameters()}
    else:
        weights = {f"layer{i}.weight": torch.full((SIDE, SIDE), 0.5) for i in range(MATRICES)}
    momentum = {f"momentum.{name}": torch.zeros_like(weight) for name, weight in weights.items()}
    return weights | momentum


def slowest(start):
    seconds = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return seconds.item()


def flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class TorchSave:
    """One file for each rank, with the tensors that are its turn."""

    def __init__(self, rank, ranks):
        self.rank, self.ranks = rank, ranks

    def save(self, state, folder):
        if self.rank == 0:
            folder.mkdir()
        dist.barrier()
        mine = dict(list(state.items())[self.rank :: self.ranks])
        file = folder / f"rank-{self.rank}.pt"
        torch.save(mine, file)
        flush(file)
        dist.barrier()
        if self.rank == 0:
            flush(folder)

    def wait(self):
        pass

    def load(self, state, folder):
        for rank in range(self.ranks):
            part = torch.load(folder / f"rank-{rank}.pt", weights_only=True)
            for name, tensor in part.items():
                state[name].copy_(tensor)


class Distributed:
    """torch.distributed.checkpoint, in the foreground or behind the training's back."""

    def __init__(self, is_async):
        self.is_async, self.pending = is_async, None

    def save(self, state, folder):
        writer = dcp.FileSystemWriter(folder, single_file_per_rank=True, sync_files=True)
        if self.is_async:
            self.pending = dcp.async_save(state, storage_writer=writer)
        else:
            dcp.save(state, storage_writer=writer)

    def wait(self):
        if self.pending:
            self.pending.result()

    def load(self, state, folder):
        dcp.load(state, storage_reader=dcp.FileSystemReader(folder))


def main():
    warnings.filterwarnings("ignore")
    contestant, model, saves, parent = sys.argv[1:]
    rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    ranks = int(os.environ["OMPI_COMM_WORLD_SIZE"])
    torch.set_num_threads(1)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29512")
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    side = TorchSave(rank, ranks) if contestant == "torch.save" else Distributed("async" in contestant)
    state = tensors(model)
    times = {"stall": [], "durable": [], "restore": []}
    # One more than is timed: the first takes memory.
    for number in range(int(saves) + 1):
        folder = Path(parent) / f"python-{number}"
        dist.barrier()
        start = time.perf_counter()
        side.save(state, folder)
        stall = slowest(start)
        side.wait()
        durable = slowest(start)
        start = time.perf_counter()
        side.load(state, folder)
        restore = slowest(start)
        if number:
            for name, seconds in [("stall", stall), ("durable", durable), ("restore", restore)]:
                times[name].append(seconds)
        if rank == 0:
            shutil.rmtree(folder)
    if rank == 0:
        print(json.dumps(times))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
