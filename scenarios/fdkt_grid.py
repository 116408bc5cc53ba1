#!/usr/bin/env python3
"""FDKT's results: every cell of a grid by `sheaf simulate`, one after the other, and the tables of all that is done.

    scenarios/fdkt_grid.py                       the grid that docs/fdkt.md tells of (about three hours on two cores)
    scenarios/fdkt_grid.py --all                 every data set at every epsilon with three seeds: for a larger machine
    scenarios/fdkt_grid.py --table               the tables of what lies in --out, nothing is run

A cell that is done is not run again, one that was interrupted goes on. Python's standard library alone.
"""
import statistics

import grid
from grid import INFINITE, share

SCENARIOS = ["fdkt-finance-quick", "fdkt-finance", "fdkt-medical"]
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


def sets_of(cell):
    scenario, _, seed = cell
    sets = [f"fdkt.tuning.seed={seed}", f"fdkt.augment.seed={seed}"]
    if scenario != "fdkt-medical":
        sets.append(f"partition.seed={seed}")
    return sets


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
    for (scenario, epsilon), reports in sorted(grid.cells_in(out, lambda r: (r.get("transfer") or {}).get("judged")).items()):
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
        print(f"\nReleased texts with a private run of {near[0]['words']} words: {sum(n['found'] for n in near)} of "
              f"{sum(n['texts'] for n in near)}; longest run {max(n['longest_run'] for n in near)} words.")
        planted = [one["canaries"] for one in judged if one.get("canaries")]
        if planted:
            print(f"Planted secrets in released texts: {sum(p['found'] for p in planted)} of "
                  f"{sum(p['planted'] for p in planted)}; longest run {max(p['longest_run'] for p in planted)} words.")
        if spent := grid.spent_of(reports):
            print(spent)
        print(grid.seconds_of(reports))


grid.main(__doc__, "runs/fdkt-grid", SMALL, ALL, sets_of, table)
