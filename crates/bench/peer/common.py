"""What every case of the peer shares: precisions, layouts, devices, memory."""

import torch

DTYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# How torch.compile is called, by the name of the variant.
MODES = {
    "compile": "default",
    "compile_reduce_overhead": "reduce-overhead",
    "compile_max_autotune": "max-autotune-no-cudagraphs",
}


class Unsupported(Exception):
    """This build of PyTorch cannot run the variant."""


def layout(variant):
    """The memory format of a variant: channels last unless its name says otherwise."""
    return LAYOUTS.get(variant, torch.channels_last)


def set_precision(precision):
    """Whether products of f32 numbers may round their factors to TF32."""
    allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def compiled(function, variant):
    """The function as the variant's name asks: as it is, or through torch.compile."""
    if not variant.startswith("compile"):
        return function
    return torch.compile(function, mode=MODES[variant], dynamic=False)


def lightly_has(module, name):
    """Something of lightly's, where it is installed."""
    try:
        import importlib

        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise Unsupported(f"lightly is not installed there ({error})") from error


def images(x, variant):
    """Diptych's [N, H, W, C] as PyTorch's [N, C, H, W], in the variant's layout, sharing nothing."""
    return x.permute(0, 3, 1, 2).clone(memory_format=torch.preserve_format).contiguous(memory_format=layout(variant))


def back(y):
    """PyTorch's [N, C, H, W] as Diptych's [N, H, W, C]."""
    return y.detach().permute(0, 2, 3, 1).contiguous()


def status(key):
    """A line of /proc/self/status in bytes, or None where there is none."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def reset_peak():
    """Lets VmHWM begin again at what is held now (proc(5)); where that is not allowed it stays the whole process's."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def live_peak(run, device):
    """Bytes that live at most during `run` above what lived before, by PyTorch's own allocator."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak if events else None
