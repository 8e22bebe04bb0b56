#!/usr/bin/env python3
"""From the data archive to a Hugging Face folder that mobilevlm-convert takes:

    tools/train/train.py --data demo-data.tar.gz --work FOLDER --out tinyvlm-draw

Stages teacher, tower, whole, places, pairs follow each other. Each writes FOLDER/STAGE.pt every few minutes; the same command goes on
where a stopped one was. Processes of one thread each share a batch by averaging their gradients.
"""
import argparse
import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import torch
import torch.distributed as dist

import export
from archive import DataError, ended, unpack
from drawings import Drawings, save
from model import Sizes
from optimizer import Optimizer
from stages import PLANS, PairsStage, PlacesStage, TeacherStage, TowerStage, WholeStage, whole_net

# Large tensors come and go every step: keeping their memory, in huge pages, makes a step 20 to 40 % shorter.
ALLOCATOR = dict(
    THP_MEM_ALLOC_ENABLE="1", GLIBC_TUNABLES="glibc.malloc.hugetlb=1", MALLOC_MMAP_THRESHOLD_="4294967295",
    MALLOC_TRIM_THRESHOLD_="8589934592", MALLOC_TOP_PAD_="268435456",
)  # fmt: skip
SAVE_EVERY = 240  # seconds


def has_fast_bf16():
    """Whether this processor multiplies bf16 in tiles (AMX): three times as fast as f32."""
    with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as f:
        return "amx_bf16" in f.read()


def options():
    p = argparse.ArgumentParser(description="Trains tinyvlm-draw from nothing; run it again to go on.")
    p.add_argument("--data", required=True, help="demo-data.tar.gz")
    p.add_argument("--work", required=True, help="folder for checkpoints and prepared drawings (4 GB)")
    p.add_argument("--out", help="the finished model's folder")
    p.add_argument("--stage", choices=list(PLANS), help="this stage only")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--processes", type=int, default=2, help="that share a step, each with a batch of its own (2, as the shipped run)")
    p.add_argument("--minutes", type=float, default=math.inf, help="pause after so long; run again to go on")
    p.add_argument("--until", type=float, help=argparse.SUPPRESS)  # seconds since 1970, for the processes
    p.add_argument("--scale", type=float, default=1.0, help="share of each stage's pictures, for a trial")
    p.add_argument("--precision", choices=("f32", "bf16"), default="bf16" if has_fast_bf16() else "f32")
    o = p.parse_args()
    o.until = o.until or time.time() + 60 * o.minutes
    return o


# ---- Checkpoints ------------------------------------------------------------------------------


def checkpoint(folder, stage):
    return os.path.join(folder, stage + ".pt")


def load(path, sizes):
    """A checkpoint, if its network has the sizes of ours."""
    if not os.path.exists(path):
        raise DataError(f"{path}: is missing: the stage before has to be finished first")
    try:
        state = torch.load(path, weights_only=False, map_location="cpu")
    except Exception as e:
        raise DataError(f"{path}: is not a checkpoint of this program: {e}") from e
    if not isinstance(state, dict) or "sizes" not in state:
        raise DataError(f"{path}: is not a checkpoint of this program")
    for name, wanted in asdict(sizes).items():
        if state["sizes"].get(name) != wanted:
            raise DataError(f"{path}: was trained with {name} {state['sizes'].get(name)}, this run has {wanted}")
    return state


def fill(net, state, path):
    """`state` of a checkpoint into the network."""
    try:
        net.load_state_dict(state)
    except RuntimeError as e:
        raise DataError(f"{path}: was trained on other data: {str(e).splitlines()[-1].strip()}") from e


def check_run(path, state, run):
    """What a checkpoint was made with must be what the run that goes on with it has."""
    for name, wanted in run.items():
        if state.get("run", run).get(name) != wanted:
            raise DataError(f"{path}: is of a run with {name} {state['run'].get(name)}, this one has {wanted} (use another --work)")


def done(opts, stage):
    path = checkpoint(opts.work, stage)
    if not os.path.exists(path):
        return False
    state = load(path, Sizes())
    check_run(path, state, run_of(opts, stage))
    return state["done"]


def trained(net, folder, stage, sizes):
    """`net` with the averaged weights of a finished stage."""
    path = checkpoint(folder, stage)
    state = load(path, sizes)
    if not state["done"]:
        raise DataError(f"{path}: the stage is not finished yet")
    fill(net, state["average"], path)
    return net


def plan_of(opts, stage):
    plan = PLANS[stage]
    return replace(plan, pictures=max(1, int(plan.pictures * opts.scale)), score_every=max(1, int(plan.score_every * opts.scale)))


def run_of(opts, stage):
    """What a stage's numbers depend on, besides the code and the data."""
    return dict(seed=opts.seed, pictures=plan_of(opts, stage).pictures, processes=opts.processes)


# ---- One stage, in one of the processes --------------------------------------------------------


def both_roles(root, folder):
    """The drawings to learn from, and those that a model is chosen on; prepared where they are not yet."""
    return Drawings(root, folder, "train"), Drawings(root, folder, "heldout-dev")


def make_stage(name, plan, train, held_out, sizes, opts, root):
    common = (plan, train, held_out, sizes, opts.seed)
    if name == "teacher":
        return TeacherStage(*common)
    teacher = trained(TeacherStage(*common).net, opts.work, "teacher", sizes)
    if name == "tower":
        return TowerStage(*common, teacher=teacher)
    tower = trained(TowerStage(*common, teacher=teacher).net, opts.work, "tower", sizes)
    net, tokenizer = whole_net(sizes, tower), os.path.join(root, "tok1k.model")
    if name == "whole":
        return WholeStage(*common, net=net, tokenizer=tokenizer)
    places = PlacesStage(*common, net=trained(net, opts.work, "whole", sizes), tokenizer=tokenizer)
    if name == "places":
        return places
    return PairsStage(*common, net=trained(places.net, opts.work, "places", sizes), tokenizer=tokenizer)


class Trainer:
    """Steps of one stage: mean gradients, rates, the running average of the weights, checkpoints, the log."""

    def __init__(self, name, stage, opts):
        self.name, self.stage, self.opts, self.plan = name, stage, opts, stage.plan
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.precision = dict(f32=torch.float32, bf16=torch.bfloat16)[opts.precision]
        self.average = copy.deepcopy(stage.net).eval().requires_grad_(False)
        self.optimizers = [
            Optimizer(module.named_parameters(), rate * self.plan.lr, rate * self.plan.muon_lr, self.precision)
            for module, rate in stage.groups
        ]
        self.step = self.seen = 0
        self.seconds = 0.0
        self.parts = {}

    def resume(self):
        path = checkpoint(self.opts.work, self.name)
        if not os.path.exists(path):
            return
        state = load(path, self.stage.sizes)
        fill(self.stage.net, state["net"], path)
        fill(self.average, state["average"], path)
        for optimizer, kept in zip(self.optimizers, state["optimizers"]):
            optimizer.load(kept)
        self.step, self.seen, self.seconds = state["step"], state["seen"], state["seconds"]

    def save(self, finished):
        if self.rank == 0:
            state = dict(
                done=finished, sizes=asdict(self.stage.sizes), run=run_of(self.opts, self.name),
                step=self.step, seen=self.seen, seconds=self.seconds, net=self.stage.net.state_dict(), average=self.average.state_dict(),
                optimizers=[o.state() for o in self.optimizers],
            )  # fmt: skip
            save(checkpoint(self.opts.work, self.name), state)

    def mean_gradients(self):
        if self.world > 1:
            gradients = [p.grad for p in self.stage.net.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            flat /= self.world
            for g, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
                g.copy_(mean.view_as(g))

    def agreed(self, flag):
        """Whether the first process says so: all must stop at the same step."""
        if self.world > 1:
            t = torch.tensor([float(flag)])
            dist.broadcast(t, 0)
            flag = bool(t.item())
        return flag

    def follow(self):
        share = 1 - min(self.plan.average, self.step / (self.step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.stage.net.parameters()), share)
            for mine, new in zip(self.average.buffers(), self.stage.net.buffers()):
                mine.copy_(new)

    def one_step(self):
        progress = self.seen / self.plan.pictures
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == torch.bfloat16):
            loss, parts = self.stage.loss(progress, self.step, self.rank)
        loss.backward()
        self.mean_gradients()
        factor = self.plan.floor + (1 - self.plan.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        for optimizer in self.optimizers:
            optimizer.step(factor * min(1, (self.step + 1) / self.plan.warmup))
        self.step += 1
        self.seen += self.plan.batch * self.world
        if self.rank == 0:
            self.follow()
            for name, value in parts.items():
                total = self.parts.setdefault(name, [0.0, 0])
                total[0] += float(value.detach())
                total[1] += 1

    def report(self):
        """One line of the log: pictures, speed, mean losses since the last one, the score of the averaged weights."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == torch.bfloat16):
            score = self.stage.score(self.average)
        losses = {name: round(total / n, 4) for name, (total, n) in self.parts.items()}
        self.parts = {}
        record = dict(stage=self.name, pictures=self.seen, minutes=round(self.seconds / 60, 2), losses=losses)
        record["score"] = {k: round(v, 4) for k, v in score.items()}
        with open(os.path.join(self.opts.work, "log.jsonl"), "a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)

    def run(self):
        """-> whether the stage is finished; False: paused."""
        self.resume()
        self.stage.net.train()
        clock = saved = time.time()
        while self.seen < self.plan.pictures:
            scored = self.seen // self.plan.score_every
            self.one_step()
            self.seconds, clock = self.seconds + time.time() - clock, time.time()
            if self.rank == 0 and self.seen // self.plan.score_every != scored:
                self.report()
            if self.step % 20 == 0 or self.step == 1:
                if self.agreed(time.time() > self.opts.until):
                    self.save(False)
                    return False
                if time.time() - saved > SAVE_EVERY:
                    self.save(False)
                    saved = time.time()
        if self.rank == 0 and self.parts:
            self.report()
        self.save(True)
        return True


def work(opts):
    """A process of a stage (its number is in RANK)."""
    world = int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(max(1, os.cpu_count() // world))
    if world > 1:
        dist.init_process_group("gloo", init_method=os.environ["RENDEZVOUS"], rank=int(os.environ["RANK"]), world_size=world)
    root = unpack(opts.data, opts.work)
    train, held_out = both_roles(root, opts.work)
    plan = plan_of(opts, opts.stage)
    torch.manual_seed(opts.seed)
    stage = make_stage(opts.stage, plan, train, held_out, Sizes(), opts, root)
    return 0 if Trainer(opts.stage, stage, opts).run() else PAUSED


# ---- The whole ---------------------------------------------------------------------------------

PAUSED = 75


def launch(opts, stage):
    """Runs a stage in its processes; -> 0, or PAUSED, or the exit status of one that failed first."""
    meeting = os.path.abspath(os.path.join(opts.work, "rendezvous"))
    if os.path.exists(meeting):
        os.unlink(meeting)
    env = dict(os.environ, **ALLOCATOR, WORLD_SIZE=str(opts.processes), RENDEZVOUS="file://" + meeting)
    env["OMP_NUM_THREADS"] = str(max(1, os.cpu_count() // opts.processes))
    argv = [sys.executable, os.path.abspath(__file__), "--data", opts.data, "--work", opts.work, "--stage", stage]
    argv += ["--seed", str(opts.seed), "--until", str(opts.until), "--scale", str(opts.scale), "--precision", opts.precision]
    argv += ["--processes", str(opts.processes)]
    workers = [subprocess.Popen(argv, env=dict(env, RANK=str(rank))) for rank in range(opts.processes)]
    try:
        ended_with = []
        # one that fails leaves the others waiting for it; one that pauses does not, and the first still writes
        while not set(ended_with) - {0, PAUSED} and len(ended_with) < len(workers):
            time.sleep(0.5)
            ended_with = [w.returncode for w in workers if w.poll() is not None]
    finally:
        for w in workers:
            if w.poll() is None:
                w.terminate()
                w.wait()
    return next((status for status in ended_with if status), 0)


def main():
    opts = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nobody is left behind
    if "RANK" in os.environ:
        return work(opts)
    os.makedirs(opts.work, exist_ok=True)
    root = unpack(opts.data, opts.work)
    both_roles(root, opts.work)
    for stage in [opts.stage] if opts.stage else PLANS:
        if not done(opts, stage):
            print(f"stage {stage}: {plan_of(opts, stage).pictures} pictures, {opts.precision}", flush=True)
            status = launch(opts, stage)
            if status < 0:
                raise DataError(f"stage {stage}: a process was ended by signal {-status}; the same command goes on")
            if status:
                return 0 if status == PAUSED else status
    if opts.out and not opts.stage:
        export.write(load(checkpoint(opts.work, list(PLANS)[-1]), Sizes()), root, opts.out)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
