"""PyTorch and lightly as the peer of `cargo xtask bench`: answers each line of JSON with one.

The requests are described in crates/bench/src/peer/mod.rs. Answers go to the first standard output alone; whatever a
library prints goes to standard error.
"""

import gc
import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch
import torchvision
from safetensors.torch import load_file, save_file

import evaluation
import losses
import neighbors
import operations
import ops
import optim
import pipelines
import steps
import views
from common import Unsupported, live_peak, reset_peak, set_precision, status

KINDS = {
    "copy": ops.Copy,
    "conv2d": ops.Conv2d,
    "batch_norm": ops.BatchNorm,
    "max_pool": ops.MaxPool,
    "linear": ops.Linear,
    "nt_xent": losses.make_nt_xent,
    "barlow_twins": losses.make_barlow_twins,
    "lars": optim.Optimizer,
    "sgd": optim.Optimizer,
    "ema": optim.Ema,
    "knn": neighbors.Neighbors,
    "logistic": evaluation.Logistic,
    "views": views.Views,
    "operation": operations.Operation,
    "pipeline": pipelines.Pipelines,
    "step": steps.Step,
}


def version_of(package):
    """Its version, or None where it is not installed."""
    try:
        return __import__(package).__version__
    except ImportError:
        return None


class Peer:
    def __init__(self):
        self.base = status("VmRSS")
        self.device = torch.device("cpu")
        self.case, self.inputs, self.running, self.resident = None, None, {}, False

    def hello(self, request):
        torch.set_num_threads(request["threads"])
        self.device = torch.device(request["device"])
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise ValueError("this PyTorch sees no GPU")
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.benchmark = True
        return {"name": f"torch {torch.__version__.split('+')[0]}", "lightly": version_of("lightly"),
                "torchvision": torchvision.__version__}

    def forget(self, request=None):
        """Drops the last case, and gives its memory back: the other program may need the room."""
        for running in self.running.values():
            if hasattr(running, "close"):
                running.close()
        self.running, self.inputs = {}, None
        if "torch._dynamo" in sys.modules:
            # What was compiled for the last case's shapes must not make the next one's dynamic.
            torch._dynamo.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {}

    def prepare(self, request):
        self.forget()
        self.case, self.resident = {**request["case"], "precision": request["precision"]}, request["resident"]
        set_precision(request["precision"])
        # Copies: the file is mapped, and goes away.
        self.inputs = {name: tensor.to(self.device, copy=True) for name, tensor in load_file(request["inputs"]).items()}
        return {}

    def get(self, variant):
        if variant not in self.running:
            self.running[variant] = KINDS[self.case["kind"]](self.case, self.inputs, variant)
            if self.resident:
                # Alone in its process: what was only needed to build it does not count.
                self.inputs = None
                gc.collect()
                reset_peak()
        return self.running[variant]

    def outputs(self, request):
        variant, problem = request["variant"], None
        try:
            tensors = self.get(variant).outputs()
        except torch.cuda.OutOfMemoryError:
            problem = "out of memory"
        except Exception as error:
            # A compiler that is missing, or fails, is no reason to have no eager figures.
            if "compile" not in variant or isinstance(error, Unsupported):
                raise
            problem = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        if problem:
            # Not while the error is alive: it holds what did not fit.
            self.running.pop(variant, None)
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            raise Unsupported(problem)
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, request["path"])
        return {}

    def time(self, request):
        run, seconds = self.get(request["variant"]).run, []
        if request["warm_up"]:
            run()
        if request["together"]:
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(request["repeats"]):
                run()
            torch.cuda.synchronize()
            return {"seconds": [(time.perf_counter() - start) / request["repeats"]]}
        for _ in range(request["repeats"]):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def memory(self, request):
        running = self.get(request["variant"])
        if not self.resident:
            return {"peak": live_peak(running.run, self.device), "resident": status("VmHWM")}
        running.run()
        peak = status("VmHWM")
        return {"peak": peak - self.base if peak and self.base else None, "resident": peak}


def main():
    peer = Peer()
    actions = {"hello": peer.hello, "prepare": peer.prepare, "outputs": peer.outputs, "time": peer.time,
               "memory": peer.memory, "forget": peer.forget}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"ok": True, **actions[request["do"]](request)}
        except Unsupported as error:
            reply = {"ok": False, "unsupported": True, "error": str(error)}
        except Exception as error:
            reply = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
