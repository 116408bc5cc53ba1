#!/usr/bin/env python3
"""RewardDS's results: every cell of a grid by `sheaf simulate`, one after the other, and the tables of all that is done.

    scenarios/rewardds_grid.py                   the grid that docs/rewardds.md tells of (about three hours on two cores)
    scenarios/rewardds_grid.py --all             every data set at every epsilon with three seeds: for a larger machine
    scenarios/rewardds_grid.py --table           the tables of what lies in --out, nothing is run

A cell that is done is not run again, one that was interrupted goes on. Python's standard library alone.
"""
import statistics

import grid
from grid import INFINITE, share, spread

SCENARIOS = ["rewardds-medical", "rewardds-finance", "rewardds-code"]
EPSILONS = (8.0, 1.0, INFINITE)
# What two cores can do in about three hours; the rest is --all.
SMALL = (
    [("rewardds-medical", epsilon, 1) for epsilon in EPSILONS]
    + [("rewardds-finance", 8.0, 1), ("rewardds-code", 8.0, 1)]
    + [(name, epsilon, 1) for name in SCENARIOS[1:] for epsilon in EPSILONS[1:]]
    + [("rewardds-medical", 8.0, seed) for seed in (2, 3)]
)
ALL = [(name, epsilon, seed) for seed in (1, 2, 3) for name in SCENARIOS for epsilon in EPSILONS]
ARMS = [
    ("untuned", "nothing"),
    ("unfiltered", "all queries, one response each"),
    ("random", "a draw"),
    ("rouge", "ROUGE-L with the other candidates"),
    ("embedding", "cosine with the query"),
    ("perplexity", "perplexity"),
    ("rgf", "RGF"),
    ("rgf-sor", "RGF + SOR"),
    ("non-private", "the records themselves, without noise (bound)"),
]
NAIVE = ["random", "rouge", "embedding", "perplexity"]
PAIRS = ["own before untuned", "own before proxy", "proxy before untuned"]


def sets_of(cell):
    _, _, seed = cell
    seeds = ["generator.tuning", "reward.tuning", "queries"]
    return [f"rewardds.{section}.seed={seed}" for section in seeds] + [f"partition.seed={seed}"]


def figures(report, arm):
    """Means over test records: exact ones where they are known, else the sites'."""
    reward = report["reward"]
    judged, sums = reward.get("judged"), ((reward.get("judged") or {}).get("arms") or {}).get(arm)
    if sums:
        return {key: value / judged["rows"] for key, value in sums.items() if value is not None}
    said = next((one["said"] for one in reward["arms"] if one["arm"] == arm), None)
    if said and said.get("pass_at_1") is not None:
        said["passed"] = said["pass_at_1"]
    return said


def pairs(report):
    reward = report["reward"]
    return (reward.get("judged") or {}).get("pairs") or reward.get("pairs")


def examples(reports, arm):
    counts = [one["examples"] for r in reports for one in r["reward"]["arms"] if one["arm"] == arm and one["examples"]]
    return f"{statistics.mean(counts):.0f}" if counts else ""


def against_naive(reports):
    """In how many runs RGF + SOR is better than every naive filter that was compared: the same records and the same candidates."""
    won = {"nll": 0, "rouge_l": 0}
    compared = 0
    for report in reports:
        naive, own = [found for arm in NAIVE if (found := figures(report, arm))], figures(report, "rgf-sor")
        if not (naive and own):
            continue
        compared += 1
        won["nll"] += own["nll"] < min(of["nll"] for of in naive)
        won["rouge_l"] += own["rouge_l"] > max(of["rouge_l"] for of in naive)
    if not compared:
        return "No naive filter to compare with."
    return f"RGF + SOR better than every naive filter: NLL in {won['nll']} of {compared} runs, ROUGE-L in {won['rouge_l']} of {compared}."


def table(out):
    for (scenario, epsilon), reports in sorted(grid.cells_in(out, lambda r: r.get("reward")).items()):
        judged = reports[0]["reward"]["judged"]
        print(f"\n### {scenario}, epsilon {epsilon}: {len(reports)} seeds, {judged['rows']} test records\n")
        code = any("passed" in (figures(r, "rgf") or {}) for r in reports)
        print("| tuned on | examples | NLL, nats | ROUGE-1 | ROUGE-2 | ROUGE-L | words |" + (" pass@1, % |" if code else ""))
        print("|---|---|---|---|---|---|---|" + ("---|" if code else ""))
        for arm, words in ARMS:
            found = [of for of in (figures(report, arm) for report in reports) if of]
            if not found:
                continue
            cells = [spread([of["nll"] for of in found], 3)]
            cells += [spread([of[key] for of in found], 4) for key in ("rouge_1", "rouge_2", "rouge_l")]
            cells.append(spread([of["words"] for of in found], 1))
            if code:
                cells.append(share([of["passed"] for of in found]))
            print(f"| {words} | {examples(reports, arm)} | " + " | ".join(cells) + " |")
        print("\n" + against_naive(reports))
        of = [pairs(report) for report in reports if pairs(report)]
        if of:
            all_pairs = share([one["right"] / one["rows"] for one in of])
            single = [share([one["by_pair"][at]["right"] / max(one["by_pair"][at]["of"], 1) for one in of]) for at in range(3)]
            print(f"Reward accuracy on held-out pairs: {all_pairs} % ("
                  + ", ".join(f"{name} {value}" for name, value in zip(PAIRS, single)) + ").")
        found = [(report["reward"].get("judged") or {}).get("generator") for report in reports]
        if found := [one for one in found if one and one["rows"]]:
            tuned, untuned = (spread([one[key] / one["rows"] for one in found], 3) for key in ("tuned", "untuned"))
            print(f"Generation proxy on test records, nats a token: {tuned} (untuned {untuned}).")
        steps = reports[0]["reward"]["funnel"]["steps"]
        kept = ", ".join(f"{step['name']} {step['given'] - sum(step['dropped'].values())} of {step['given']}" for step in steps)
        print(f"Funnel, seed 1: {kept}.")
        for one in reports[0]["reward"]["rounds"]:
            pool = one["variety"]["pool"]
            print(f"Round {one['round']}, seed 1: {one['accepted']} taken of {one['queries']}, pool {one['pool']}, "
                  f"{pool['mean_words']:.1f} words a response, distinct-2 {pool['distinct_2']:.3f}.")
        print(f"Training records left out as near-duplicates of test records: {judged['duplicates']}.")
        if spent := grid.spent_of(reports):
            print(spent)
        print(grid.seconds_of(reports))


grid.main(__doc__, "runs/rewardds-grid", SMALL, ALL, sets_of, table)
