"""One core is this process; several are as many forked ones.

A job's `make(start, stop)` makes some of its items. In forked processes what it makes must go to shared memory, if anybody wants it: to
send it through a pipe, as a pool or a DataLoader's queue would without that, costs more than to make it.
"""

import multiprocessing
import random

import torch

job_here = None


def begin(job, number):
    global job_here
    job_here = job
    with number.get_lock():
        number.value += 1
        seed = number.value
    alone(seed)


def alone(seed):
    """One thread, in whichever library, and draws of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        import cv2

        cv2.setNumThreads(0)
    except ImportError:
        pass


def work(span):
    job_here.make(*span)


class Workers:
    """Runs `job.make` over `count` items, `chunk` at a time, on `cores` cores."""

    def __init__(self, job, cores, count, chunk):
        self.job, self.pool = job, None
        self.spans = [(start, min(start + chunk, count)) for start in range(0, count, chunk)]
        # Before the fork: a child of a process with threads at work may wait for them forever.
        alone(0)
        if cores > 1:
            context = multiprocessing.get_context("fork")
            self.pool = context.Pool(cores, begin, (job, context.Value("i", 0)))

    def run(self):
        alone_or_pool = map if self.pool is None else self.pool.imap_unordered
        function = (lambda span: self.job.make(*span)) if self.pool is None else work
        for _ in alone_or_pool(function, self.spans):
            pass

    def close(self):
        if self.pool is not None:
            self.pool.terminate()
            self.pool.join()
