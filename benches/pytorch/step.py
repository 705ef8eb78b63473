"""Times training steps, on several ranks under DistributedDataParallel, by default of 12 images of 256x256 in all.

    python step.py --ranks 2
    mpirun -n 2 python step.py --method ustm
    python step.py --ranks 2 --bf16 --channels-last
    python step.py --device cuda --bf16 --channels-last --compile --warmup 20 --steps 100 --read-every 5
    python step.py --device cuda --forms fp32 tf32 bf16 reduce-overhead max-autotune --limit 60

Ranks on the CPU talk over gloo with one thread each, ranks on GPUs over NCCL. Batch norm is local to
each rank, DDP's default; `--sync-bn` joins it (PyTorch has that for GPUs only). Rank 0 prints one
JSON line with `step_ms`, a list without the steps of the warm-up: the time between two looks at the loss
over the steps between them. With `--forms` it prints such a line for each form, as soon as it is measured, with
`form` and, on GPUs, `memory_bytes`, the most that tensors held; a form that fails or takes longer than
`--limit` has `error` in place of numbers. `cargo bench --bench step` and `launch/gpu-check` call this script.
Needs torch.
"""

import argparse
import gc
import json
import os
import signal
import sys
import time
from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from methods import CLASSES, IGNORE, METHODS, Setup

# Different batches in turn, so that no cache holds the inputs.
BATCHES = 4
SHORT = {"bf16": True, "channels_last": True}
# How users train, by name: what each sets of the options.
FORMS = {
    "fp32": {},
    "tf32": {"tf32": True},
    "bf16": SHORT,
    "reduce-overhead": SHORT | {"compile": True, "compile_mode": "reduce-overhead"},
    "max-autotune": SHORT | {"compile": True, "compile_mode": "max-autotune-no-cudagraphs"},
}


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
    parser.add_argument("--compile", action="store_true", help="torch.compile of forward passes with their losses")
    modes = ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
    parser.add_argument("--compile-mode", choices=modes, help="default: with CUDA graphs on cuda")
    parser.add_argument("--forms", choices=FORMS, nargs="+", help="measures these one after the other, on one rank")
    parser.add_argument("--limit", type=int, default=0, help="seconds for a form; 0: as many as it takes")
    options = parser.parse_args()
    if options.read_every < 1 or options.steps < 1 or options.steps % options.read_every:
        parser.error("--steps must be a multiple of --read-every, and both at least 1")
    if options.forms and options.ranks > 1:
        parser.error("--forms are measured on one rank")
    if options.compile_mode is None:
        options.compile_mode = "reduce-overhead" if options.device == "cuda" else "default"
    if options.sync_bn and options.device == "cpu":
        parser.error("--sync-bn needs --device cuda: torch.nn.SyncBatchNorm has no CPU kernels")
    return options


def random_batches(rank, ranks, device, layout, options):
    """This rank's share of random images with scribbles on one pixel in a hundred, and of label maps."""
    samples, size = options.batch // ranks + (rank < options.batch % ranks), options.size
    generator = torch.Generator().manual_seed(rank)
    batches = []
    for _ in range(BATCHES):
        image = torch.rand(samples, 1, size, size, generator=generator)
        label = torch.randint(0, IGNORE, (samples, size, size), generator=generator)
        label[torch.rand(label.shape, generator=generator) > 0.01] = IGNORE
        shapes = torch.randint(0, CLASSES, label.shape, generator=generator)
        batches.append((image.to(device, memory_format=layout), label.to(device), shapes.to(device)))
    return batches


def build(options, ranks, device, layout):
    torch.manual_seed(2022)

    def place(net):
        net = net.to(device, memory_format=layout)
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(net) if options.sync_bn else net

    def share(net):
        if ranks == 1:
            return net
        return DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)

    def compiled(function):
        if not options.compile:
            return function
        return torch.compile(function, mode=options.compile_mode, dynamic=False)

    precision = torch.autocast(device.type, torch.bfloat16) if options.bf16 else nullcontext()
    return METHODS[options.method](Setup(place, share, compiled, precision))


def time_steps(method, batches, options):
    """Times of a step in milliseconds, and the last loss."""
    step_ms = []
    start = time.perf_counter()
    for step in range(options.warmup + options.steps):
        # The step before has left nothing that is still needed in the memory of CUDA graphs.
        torch.compiler.cudagraph_mark_step_begin()
        loss = method.iterate(batches[step % BATCHES], step)
        timed = step + 1 - options.warmup
        # Users log the loss; on a GPU this is also what ends the step.
        if timed >= 0 and timed % options.read_every == 0:
            value = loss.item()
            now = time.perf_counter()
            if timed > 0:
                step_ms.append((now - start) * 1e3 / options.read_every)
            start = now
    return step_ms, value


def measure(rank, ranks, device, options):
    """Times of a step in milliseconds, and the last loss, of a training of one form."""
    # PyTorch's default is short products in convolutions and long ones elsewhere.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    # Steps are all alike, so that it pays to try which convolutions are fastest.
    torch.backends.cudnn.benchmark = device.type == "cuda"
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    batches = random_batches(rank, ranks, device, layout, options)
    return time_steps(build(options, ranks, device, layout), batches, options)


def too_long(_signal, _frame):
    raise TimeoutError("longer than --limit")


def measure_forms(device, options):
    """Prints the numbers of each form when it is measured; what one leaves behind is cleared away."""
    signal.signal(signal.SIGALRM, too_long)
    for form in options.forms:
        found = {"form": form}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        signal.alarm(options.limit)
        try:
            chosen = argparse.Namespace(**(vars(options) | FORMS[form]))
            step_ms, loss = measure(0, 1, device, chosen)
            found |= {"loss": loss, "step_ms": step_ms}
            if device.type == "cuda":
                found["memory_bytes"] = torch.cuda.max_memory_allocated(device)
        # Whatever a compiler says: the next form may do without it.
        except Exception as error:  # noqa: BLE001
            found["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"{form}: {error}", file=sys.stderr)
        finally:
            signal.alarm(0)
        print(json.dumps(found), flush=True)
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def train(rank, ranks, options):
    """One rank: joins the others, trains, and prints if it is the first."""
    torch.set_num_threads(1)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    on_gpu = options.device == "cuda"
    device = torch.device("cuda", rank % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if ranks > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=ranks)
    if options.forms:
        measure_forms(device, options)
        return
    step_ms, loss = measure(rank, ranks, device, options)
    if rank == 0:
        print(json.dumps({"ranks": ranks, "loss": loss, "step_ms": step_ms}))
    if ranks > 1:
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
