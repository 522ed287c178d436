"""What every case of the peer shares: dtypes, layouts, memory."""

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


class Unsupported(Exception):
    """This build of PyTorch cannot run the variant."""


def images(x, variant):
    """Diptych's [N, H, W, C] as PyTorch's [N, C, H, W], in the variant's layout, sharing nothing."""
    return x.permute(0, 3, 1, 2).clone(memory_format=torch.preserve_format).contiguous(memory_format=LAYOUTS[variant])


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


def live_peak(run):
    """Bytes that live at most during `run` above what lived before, by the events of PyTorch's own allocator."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak if events else None
