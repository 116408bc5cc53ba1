"""Accuracy against epsilon: runs a private scenario at several epsilons, several times each, and prints a table.

    python3 scenarios/private_curves.py BINARY scenarios/heart-private.toml runs/curve-heart.csv [KEY=VALUE ...]

Noise is drawn anew in every run, so runs of one setting differ; mean and standard deviation are over them. The CSV keeps
every run, and a second call goes on where the first one stopped.
"""

import csv
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

EPSILONS = ["0.5", "1", "2", "4", "8"]
RUNS = 5


def simulate(binary, plan, settings, out):
    shutil.rmtree(out, ignore_errors=True)
    command = [binary, "simulate", plan, "--json", "--out", str(out)]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    report = json.loads(done.stdout)
    shutil.rmtree(out, ignore_errors=True)
    return report


def main(binary, plan, table, *settings):
    table = pathlib.Path(table)
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    for masked in ["false", "true"]:
        for epsilon in EPSILONS:
            done = sum(row["epsilon"] == epsilon and row["masked"] == masked for row in rows)
            for run in range(done, RUNS):
                chosen = [f"privacy.epsilon={epsilon}", f"run.secure_aggregation={masked}", "evaluate.central=true"]
                report = simulate(binary, plan, [*chosen, *settings], table.with_suffix(".run"))
                metrics = report["metrics"]
                row = {
                    "masked": masked,
                    "epsilon": epsilon,
                    "run": str(run),
                    "accuracy": str(metrics["test"]["accuracy"]),
                    "balanced": str(metrics["test"]["balanced_accuracy"]),
                    "exact": str(metrics["pooled"]["accuracy"]),
                    "local": str((metrics["local"] or {}).get("mean_accuracy", "")),
                    "seconds": str(report["timing"]["total_s"]),
                }
                rows.append(row)
                fresh = not table.exists()
                with table.open("a", newline="") as file:
                    writer = csv.DictWriter(file, row.keys())
                    if fresh:
                        writer.writeheader()
                    writer.writerow(row)
    print("| epsilon | noise of each site | noise shared under secure aggregation |")
    print("|---|---|---|")
    for epsilon in EPSILONS:
        cells = []
        for masked in ["false", "true"]:
            values = [float(r["accuracy"]) for r in rows if r["epsilon"] == epsilon and r["masked"] == masked]
            cells.append(f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f} %")
        print(f"| {epsilon} | {cells[0]} | {cells[1]} |")
    print(f"Exact, all rows in one place: {100 * float(rows[0]['exact']):.1f} %.", end=" ")
    if rows[0]["local"]:
        print(f"One site's own exact model: {100 * float(rows[0]['local']):.1f} %.")


if __name__ == "__main__":
    main(*sys.argv[1:])
