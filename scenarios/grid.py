"""What the grids of studies share: cells by `sheaf simulate`, one after the other, and means over their seeds.

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
INFINITE = math.inf
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


def run(binary, out, cell, sets, extra):
    """One cell with these keys set; nothing where it is done."""
    scenario, epsilon, _ = cell
    done = folder(out, cell)
    if (done / "report.json").exists() and not (done / "work").exists():
        return
    with tempfile.TemporaryDirectory() as into:
        if epsilon != INFINITE:
            sets = [*sets, f"privacy.epsilon={epsilon}"]
        command = [binary, "simulate", str(plan_of(scenario, epsilon, into)), "--out", str(done)]
        command += [part for one in sets for part in ("--set", one)] + extra
        print("+", " ".join(command), flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def cells_in(out, wanted):
    """The reports by scenario and epsilon, of which `wanted` holds."""
    found = {}
    for path in sorted(out.glob("*/report.json")):
        match = re.fullmatch(r"(.+)-eps-(.+)-seed-(\d+)", path.parent.name)
        report = json.loads(path.read_text())
        if match and wanted(report):
            found.setdefault((match[1], match[2]), []).append(report)
    return found


def spread(values, places):
    """The mean over seeds, with the half of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{places}f}"
    half = T[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{places}f} ± {half:.{places}f}"


def share(values):
    """The same of shares, per cent."""
    return spread([100 * value for value in values], 1)


def seconds_of(reports):
    seconds = {}
    for report in reports:
        for phase in report["timing"]["phases"]:
            seconds.setdefault(phase["name"], []).append(phase["seconds"])
    return "Seconds: " + ", ".join(f"{name} {statistics.mean(all):.0f}" for name, all in seconds.items()) + "."


def spent_of(reports):
    spent = [site["privacy"] for r in reports for site in r["sites"] if site.get("privacy")]
    if not spent:
        return None
    return (f"Spent by a site: {max(s['epsilon'] for s in spent):.3f} (PLD), {max(s['epsilon_rdp'] for s in spent):.3f} "
            f"(RDP) at delta {spent[0]['delta']:g}.")


def main(doc, default_out, small, everything, sets_of, table):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(HERE.parent / "target/release/sheaf"))
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent / default_out)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", default="", metavar="REGEX", help="cells whose folder's name has this in it")
    parser.add_argument("extra", nargs="*", help="after --: more options of sheaf simulate")
    args = parser.parse_args()
    cells = [] if args.table else everything if args.all else small
    for cell in [cell for cell in cells if re.search(args.only, folder(args.out, cell).name)]:
        try:
            run(args.binary, args.out, cell, sets_of(cell), args.extra)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{folder(args.out, cell).name}: sheaf ended with {error.returncode}; the same command goes on")
    table(args.out)
