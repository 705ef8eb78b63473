"""Times training steps under DistributedDataParallel, by default of 12 images of 256x256 in all.

    python step.py --ranks 2
    mpirun -n 2 python step.py --method ustm
    python step.py --ranks 2 --bf16 --channels-last
    python step.py --device cuda --bf16 --channels-last --compile

Ranks on the CPU talk over gloo with one thread each, ranks on GPUs over NCCL. Batch norm is local to
each rank, DDP's default; `--sync-bn` joins it (PyTorch has that for GPUs only). Rank 0 prints one
JSON line with `step_ms`, a list without the steps of the warm-up. `cargo bench --bench step` calls this script. Needs torch.
"""

import argparse
import json
import os
import time
from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from methods import IGNORE, METHODS, TOTAL_STEPS
from training import poly_lr, set_lr, sgd

BASE_LR = 0.03
# Different batches in turn, so that no cache holds the inputs.
BATCHES = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=METHODS, default="partial-ce")
    parser.add_argument("--ranks", type=int, default=1, help="processes to start (without mpirun)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--read-every", type=int, default=1, help="steps between two looks at the loss")
    parser.add_argument("--batch", type=int, default=12, help="images of all ranks together")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of an image")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tf32", action="store_true", help="short products in fp32 (cuda)")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--sync-bn", action="store_true", help="batch norm over all ranks (cuda)")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    options = parser.parse_args()
    if options.sync_bn and options.device == "cpu":
        parser.error("--sync-bn needs --device cuda: torch.nn.SyncBatchNorm has no CPU kernels")
    return options


def random_batches(rank, ranks, device, layout, options):
    """This rank's share of random images with scribbles on one pixel in a hundred."""
    samples, size = options.batch // ranks + (rank < options.batch % ranks), options.size
    generator = torch.Generator().manual_seed(rank)
    batches = []
    for _ in range(BATCHES):
        image = torch.rand(samples, 1, size, size, generator=generator)
        label = torch.randint(0, IGNORE, (samples, size, size), generator=generator)
        label[torch.rand(label.shape, generator=generator) > 0.01] = IGNORE
        batches.append((image.to(device, memory_format=layout), label.to(device)))
    return batches


def build(options, device, layout):
    torch.manual_seed(2022)

    def place(net):
        net = net.to(device, memory_format=layout)
        if options.sync_bn:
            net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        net = DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)
        return torch.compile(net) if options.compile else net

    return METHODS[options.method](place)


def train(rank, ranks, options):
    """One rank: joins the others, trains, and prints if it is the first."""
    torch.set_num_threads(1)
    # PyTorch's default is short products in convolutions and long ones elsewhere.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    on_gpu = options.device == "cuda"
    device = torch.device("cuda", rank % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=ranks)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    batches = random_batches(rank, ranks, device, layout, options)
    method = build(options, device, layout)
    optimizer = sgd(method.parameters(), BASE_LR)
    precision = torch.autocast(device.type, torch.bfloat16) if options.bf16 else nullcontext()
    step_ms = []
    start = time.perf_counter()
    for step in range(options.warmup + options.steps):
        image, label = batches[step % BATCHES]
        set_lr(optimizer, poly_lr(BASE_LR, step, TOTAL_STEPS))
        optimizer.zero_grad()
        with precision:
            loss = method.loss(image, label, step)
        loss.backward()
        optimizer.step()
        method.stepped(step)
        # Users log the loss; on a GPU this is also what ends the step.
        if (step + 1) % options.read_every == 0:
            value = loss.item()
            step_ms.append((time.perf_counter() - start) * 1e3 / options.read_every)
            start = time.perf_counter()
    if rank == 0:
        print(json.dumps({"ranks": ranks, "loss": value, "step_ms": step_ms[options.warmup // options.read_every :]}))
    dist.destroy_process_group()


def main():
    options = arguments()
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
        train(rank, int(os.environ["OMPI_COMM_WORLD_SIZE"]), options)
    elif options.ranks == 1:
        train(0, 1, options)
    else:
        mp.spawn(train, args=(options.ranks, options), nprocs=options.ranks)


if __name__ == "__main__":
    main()
