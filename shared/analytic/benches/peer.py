"""CPU seconds (user and system) of the same steps with NumPy and SciPy, best of several runs.

    python3 -m venv peer && peer/bin/pip install numpy scipy
    OPENBLAS_NUM_THREADS=2 OMP_NUM_THREADS=2 peer/bin/python benches/peer.py [--all]

--all adds the pairwise AA law at K = 1000, which takes minutes.
"""

import sys
import time

import numpy as np
from scipy.linalg import cho_solve, cholesky

ROWS, CLASSES = 8192, 100


def best(work, times=5):
    seconds = []
    for _ in range(times):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


def line(name, dim, seconds, note=""):
    print(f"{name:<28} {dim:>5} {seconds:>9.4f}  {note}", flush=True)


def measure(dim):
    rng = np.random.default_rng(dim)
    a = np.maximum(rng.uniform(-1, 1, (ROWS, dim)), 0)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    labels = np.eye(CLASSES)[np.arange(ROWS) % CLASSES]
    gram, seconds = best(lambda: a.T @ a)
    line("gram (dsyrk)", dim, seconds, "8192 rows")
    cross, seconds = best(lambda: a.T @ labels)
    line("cross (gemm)", dim, seconds, "8192 rows")
    system = gram + 0.1 * np.eye(dim)
    factor, seconds = best(lambda: cholesky(system, lower=True, check_finite=False))
    line("cholesky", dim, seconds, "SciPy")
    _, seconds = best(lambda: cho_solve((factor, True), cross, check_finite=False))
    line("cho_solve", dim, seconds, "100 right sides")


def pair(wu, cu, wv, cv):
    """The AA law of arXiv 2405.16240, as written there."""
    eye = np.eye(cu.shape[0])
    s = np.linalg.inv(cu + cv)
    ru, rv = np.linalg.inv(cu), np.linalg.inv(cv)
    left = eye - ru @ cv + ru @ cv @ s @ cv
    right = eye - rv @ cu + rv @ cu @ s @ cu
    return left @ wu + right @ wv, cu + cv


def aggregate(sites, times):
    dim, rows, gamma = 512, 100, 1.0
    rng = np.random.default_rng(sites)
    eye, sums = np.eye(dim), []
    for _ in range(10):
        x = rng.normal(size=(rows, dim)) / np.sqrt(dim)
        sums.append((x.T @ x, x.T @ np.eye(CLASSES)[rng.integers(CLASSES, size=rows)]))
    clients = [(np.linalg.solve(g + gamma * eye, b), g + gamma * eye) for g, b in sums]

    def pairwise():
        w, c = clients[0]
        for k in range(1, sites):
            w, c = pair(w, c, *clients[k % 10])
        return np.linalg.solve(c - (sites - 1) * gamma * eye, c @ w)

    def one_solve():
        g, b = np.zeros((dim, dim)), np.zeros((dim, CLASSES))
        for k in range(sites):
            g += sums[k % 10][0]
            b += sums[k % 10][1]
        return cho_solve((cholesky(g + gamma * eye, lower=True), True), b)

    a, seconds = best(pairwise, times)
    line(f"K = {sites}: pairwise AA", dim, seconds)
    b, seconds = best(one_solve)
    line(f"K = {sites}: sum + one solve", dim, seconds, f"max |dW| {np.abs(a - b).max():.1e}")


if __name__ == "__main__":
    print(f"{'step':<28} {'D':>5} {'CPU s':>9}")
    measure(1280)
    measure(2048)
    aggregate(100, 2)
    if "--all" in sys.argv:
        aggregate(1000, 1)
