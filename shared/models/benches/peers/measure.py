"""CPU seconds (user and system, all threads), wall seconds and peak memory of one piece of work, as one JSON line."""

import argparse
import json
import os
import resource
import statistics
import time


def arguments(**more):
    """--threads and --times, and further ones as name=default."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--times", type=int, default=3, help="measured repetitions after one that warms up; the median is printed")
    for name, default in more.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(args.threads))
    # OpenMP's threads spin while they wait. On a loaded machine that counted 29 CPU s for a step of 12: let them sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return args


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def report(name, work, args, per=1):
    """`per`: how many units (tokens, say) one call of `work` does; seconds are given for one unit."""
    work()
    walls, cpus = [], []
    for _ in range(args.times):
        c, w = cpu(), time.perf_counter()
        work()
        cpus.append((cpu() - c) / per)
        walls.append((time.perf_counter() - w) / per)
    print(json.dumps({
        "name": name, "cpu_s": round(statistics.median(cpus), 5), "wall_s": round(statistics.median(walls), 5),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "load": round(os.getloadavg()[0], 1), "threads": args.threads,
    }), flush=True)
