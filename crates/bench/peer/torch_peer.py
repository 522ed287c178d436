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
import lightly
from safetensors.torch import load_file, save_file

import losses
import ops
import optim
import steps
from common import Unsupported, live_peak, reset_peak, status

KINDS = {
    "conv2d": ops.Conv2d,
    "batch_norm": ops.BatchNorm,
    "max_pool": ops.MaxPool,
    "linear": ops.Linear,
    "nt_xent": losses.make_nt_xent,
    "barlow_twins": losses.make_barlow_twins,
    "lars": optim.Optimizer,
    "sgd": optim.Optimizer,
    "ema": optim.Ema,
    "step": steps.Step,
}


class Peer:
    def __init__(self):
        self.base = status("VmRSS")
        self.case, self.inputs, self.running, self.resident = None, None, {}, False

    def hello(self, request):
        torch.set_num_threads(request["threads"])
        if not request["device"].startswith(("cpu", "auto")):
            raise ValueError(f"this peer has no {request['device']}")
        return {"name": f"torch {torch.__version__.split('+')[0]}", "lightly": lightly.__version__,
                "torchvision": torchvision.__version__}

    def prepare(self, request):
        self.running, self.inputs = {}, None
        gc.collect()
        self.case, self.resident = request["case"], request["resident"]
        # Copies: the file is mapped, and goes away.
        self.inputs = {name: tensor.clone() for name, tensor in load_file(request["inputs"]).items()}
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
        tensors = self.get(request["variant"]).outputs()
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, request["path"])
        return {}

    def time(self, request):
        run, seconds = self.get(request["variant"]).run, []
        if request["warm_up"]:
            run()
        for _ in range(request["repeats"]):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def memory(self, request):
        running = self.get(request["variant"])
        if not self.resident:
            return {"peak": live_peak(running.run), "resident": status("VmHWM")}
        running.run()
        peak = status("VmHWM")
        return {"peak": peak - self.base if peak and self.base else None, "resident": peak}


def main():
    peer = Peer()
    actions = {"hello": peer.hello, "prepare": peer.prepare, "outputs": peer.outputs, "time": peer.time,
               "memory": peer.memory}
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
