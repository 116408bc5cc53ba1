"""Cuts MedQuAD to four institutes, so many question and answer pairs each, the same ones every time.

    python3 scenarios/medquad_four.py medical_medquad.jsonl.gz scenarios/medquad-four.jsonl [pairs]

The input has one JSON object a line with id, split, text, answer and site.
"""

import gzip
import hashlib
import json
import sys

SITES = 4
TRAIN, TEST = 48, 12


def order(record):
    return hashlib.sha256(record["id"].encode()).hexdigest()


def main(source, target, train=TRAIN):
    opened = gzip.open(source, "rt", encoding="utf-8") if source.endswith(".gz") else open(source, encoding="utf-8")
    by_site = {}
    with opened:
        for line in opened:
            record = json.loads(line)
            if record.get("answer") and record.get("site"):
                side = "test" if record["split"] == "test" else "train"
                by_site.setdefault(record["site"], {"train": [], "test": []})[side].append(record)
    enough = [site for site, sides in by_site.items() if len(sides["train"]) >= train and len(sides["test"]) >= TEST]
    largest = sorted(enough, key=lambda site: (-len(by_site[site]["train"]), site))[:SITES]
    if len(largest) < SITES:
        sys.exit(f"only {len(largest)} institutes have {train} training and {TEST} test pairs")
    with open(target, "w", encoding="utf-8") as out:
        for site in sorted(largest):
            for side, count in (("train", train), ("test", TEST)):
                for record in sorted(by_site[site][side], key=order)[:count]:
                    kept = {key: record[key] for key in ("id", "split", "text", "answer", "site")}
                    out.write(json.dumps(kept, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
