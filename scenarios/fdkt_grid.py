#!/usr/bin/env python3
"""FDKT's results: every cell of a grid by `sheaf simulate`, one after the other, and the tables of all that is done.

    scenarios/fdkt_grid.py                       the grid that docs/fdkt.md tells of (about three hours on two cores)
    scenarios/fdkt_grid.py --all                 every data set at every epsilon with three seeds: for a larger machine
    scenarios/fdkt_grid.py --table               the tables of what lies in --out, nothing is run

A cell that is done is not run again, one that was interrupted goes on. Python's standard library alone.
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS = ["fdkt-finance-quick", "fdkt-finance", "fdkt-medical"]
INFINITE = math.inf
# What two cores can do in about three hours; the rest is --all.
SMALL = (
    [("fdkt-finance-quick", 8.0, seed) for seed in (1, 2, 3)]
    + [("fdkt-finance-quick", INFINITE, 1), ("fdkt-finance-quick", 1.0, 1), ("fdkt-finance-quick", 4.0, 1)]
    + [("fdkt-medical", 8.0, 1), ("fdkt-medical", INFINITE, 1)]
    + [("fdkt-finance-quick", INFINITE, seed) for seed in (2, 3)]
    + [("fdkt-finance", 8.0, 1), ("fdkt-finance", INFINITE, 1)]
)
ALL = [(name, epsilon, seed) for name in SCENARIOS for epsilon in (1.0, 4.0, 8.0, INFINITE) for seed in (1, 2, 3)]
ARMS = [
    ("local", "own records"),
    ("synthetic", "+ the sites' DP texts"),
    ("llm", "+ the language model's texts, from labels alone"),
    ("fdkt", "+ FDKT's texts"),
    ("synthetic-alone", "the sites' DP texts alone"),
    ("llm-alone", "the language model's texts alone"),
    ("fdkt-alone", "FDKT's texts alone"),
]
# Student's t, 97.5 %, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def name_of(epsilon):
    return "infinity" if epsilon == INFINITE else f"{epsilon:g}"


def folder(out, cell):
    scenario, epsilon, seed = cell
    return out / f"{scenario}-eps-{name_of(epsilon)}-seed-{seed}"


def plan_of(scenario, epsilon, into):
    """The plan's file: as it is, or without its [privacy] section."""
    path = HERE / f"{scenario}.toml"
    if epsilon != INFINITE:
        return path
    text = re.sub(r"^\[privacy\]\n(?:(?!\[).*\n)*", "", path.read_text(), flags=re.M)
    without = pathlib.Path(into) / f"{scenario}.toml"
    without.write_text(text)
    return without


def run(binary, out, cell, extra):
    scenario, epsilon, seed = cell
    done = folder(out, cell)
    if (done / "report.json").exists() and not (done / "work").exists():
        return
    with tempfile.TemporaryDirectory() as into:
        sets = [f"fdkt.tuning.seed={seed}", f"fdkt.augment.seed={seed}"]
        if scenario != "fdkt-medical":
            sets.append(f"partition.seed={seed}")
        if epsilon != INFINITE:
            sets.append(f"privacy.epsilon={epsilon}")
        command = [binary, "simulate", str(plan_of(scenario, epsilon, into)), "--out", str(done)]
        command += [part for one in sets for part in ("--set", one)] + extra
        print("+", " ".join(command), flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def cells_in(out):
    found = {}
    for path in sorted(out.glob("*/report.json")):
        match = re.fullmatch(r"(.+)-eps-(.+)-seed-(\d+)", path.parent.name)
        report = json.loads(path.read_text())
        if match and (report.get("transfer") or {}).get("judged"):
            found.setdefault((match[1], match[2]), []).append(report)
    return found


def share(values):
    mean = 100 * statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    half = T[len(values) - 1] * 100 * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.1f} ± {half:.1f}"


def arms_table(reports, judged):
    """The exact figures of one task model over the seeds: by arm, and of all records."""
    print("| learnt from | texts | accuracy, % | against own records |\n|---|---|---|---|")
    for arm, words in ARMS:
        values = [one["arms"][arm] for one in judged if arm in one["arms"]]
        if not values:
            continue
        gains = [one["arms"][arm] - one["arms"]["local"] for one in judged if arm in one["arms"]]
        counts = [r["transfer"]["counts"].get(arm.removesuffix("-alone")) for r in reports]
        texts = "" if arm == "local" else f"{statistics.mean(c for c in counts if c is not None):.0f}"
        print(f"| {words} | {texts} | {share(values)} | {'' if arm == 'local' else share(gains)} |")
    pooled = [one["pooled"] for one in judged]
    gains = [one["pooled"] - one["arms"]["local"] for one in judged]
    print(f"| all sites' records in one place | | {share(pooled)} | {share(gains)} |")


def table(out):
    for (scenario, epsilon), reports in sorted(cells_in(out).items()):
        judged = [report["transfer"]["judged"] for report in reports]
        print(f"\n### {scenario}, epsilon {epsilon}: {len(reports)} seeds, {judged[0]['rows']} test records\n")
        arms_table(reports, judged)
        # Of plans whose task names the language model too.
        tuned = [(report, one["language_model"]) for report, one in zip(reports, judged) if one.get("language_model")]
        if tuned:
            name = tuned[0][0]["transfer"].get("names", {}).get("language-model", "language model")
            print(f"\nThe same with another task model, {name}: {len(tuned)} seeds\n")
            arms_table([report for report, _ in tuned], [one for _, one in tuned])
        near = [one["near_copies"] for one in judged]
        spent = [site["privacy"] for r in reports for site in r["sites"] if site.get("privacy")]
        seconds = {}
        for report in reports:
            for phase in report["timing"]["phases"]:
                seconds.setdefault(phase["name"], []).append(phase["seconds"])
        print(f"\nReleased texts with a private run of {near[0]['words']} words: {sum(n['found'] for n in near)} of "
              f"{sum(n['texts'] for n in near)}; longest run {max(n['longest_run'] for n in near)} words.")
        planted = [one["canaries"] for one in judged if one.get("canaries")]
        if planted:
            print(f"Planted secrets in released texts: {sum(p['found'] for p in planted)} of "
                  f"{sum(p['planted'] for p in planted)}; longest run {max(p['longest_run'] for p in planted)} words.")
        if spent:
            print(f"Spent by a site with the measuring: {max(s['epsilon'] for s in spent):.3f} (PLD), "
                  f"{max(s['epsilon_rdp'] for s in spent):.3f} (RDP) at delta {spent[0]['delta']:g}.")
        print("Seconds: " + ", ".join(f"{name} {statistics.mean(all):.0f}" for name, all in seconds.items()) + ".")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(HERE.parent / "target/release/sheaf"))
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent / "runs/fdkt-grid")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", default="", metavar="REGEX", help="cells whose folder's name has this in it")
    parser.add_argument("extra", nargs="*", help="after --: more options of sheaf simulate")
    args = parser.parse_args()
    cells = [] if args.table else ALL if args.all else SMALL
    for cell in [cell for cell in cells if re.search(args.only, folder(args.out, cell).name)]:
        try:
            run(args.binary, args.out, cell, args.extra)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{folder(args.out, cell).name}: sheaf ended with {error.returncode}; the same command goes on")
    table(args.out)


main()
