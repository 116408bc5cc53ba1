"""Run ours and theirs in turns and print a table of medians.

    python shared/models/benches/peers/compare.py [--rounds 3] --pair NAME "OUR COMMAND" "THEIR COMMAND" [--pair ...]

Each command is run by a shell in the current folder and prints one JSON line with name, cpu_s, wall_s, rss_mb (other lines are ignored;
of several such lines the one called NAME is taken, else the last). Turns are ours, theirs, ours, theirs: other load on the machine meets
both. CPU seconds are the figure to compare on a loaded machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys


def run(command, name):
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True)
    found = []
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    if done.returncode or not found:
        raise SystemExit(f"`{command}` ended with {done.returncode} and {len(found)} JSON lines; its output:\n{done.stdout}")
    return next((f for f in found if f.get("name") == name), found[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pair", nargs=3, action="append", metavar=("NAME", "OURS", "THEIRS"), required=True)
    args = parser.parse_args()
    lines = []
    for name, *commands in args.pair:
        seen = [[], []]
        for turn in range(args.rounds):
            for side, command in enumerate(commands):
                seen[side].append(run(command, name))
                print(f"{name} {turn + 1}/{args.rounds} {'theirs' if side else 'ours'}: {seen[side][-1]}", file=sys.stderr, flush=True)
        (oc, ow, om), (tc, tw, tm) = ([statistics.median(r[key] for r in rows) for key in ("cpu_s", "wall_s", "rss_mb")] for rows in seen)
        lines.append(f"| {name} | {oc:.4g} / {tc:.4g} | {oc / tc:.2f} | {ow:.4g} / {tw:.4g} | {om:.0f} / {tm:.0f} | {om / tm:.2f} |")
    print("| work | CPU s, ours / theirs | ratio | wall s | peak MB | ratio |\n|---|---|---|---|---|---|")
    print("\n".join(lines))
    print(f"\nMedians of {args.rounds} interleaved runs; load average at the end {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
