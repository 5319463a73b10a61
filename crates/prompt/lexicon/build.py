"""Derives lexicon.txt from WordNet 3.1: what kind of word each English word is.

README.md says how to run it.

A class is a string of letters, the likelier first: `T` names a thing, `t` may name one, `N` any other
noun, `a` adjective, `v` verb, `r` adverb. A sense weighs its count in WordNet's tagged texts plus one
over its rank. Words stand sorted below `= CLASS`, each as the number of letters it shares with the
word before (a digit, 9 at most) and the rest. Below `= irregular` stand `plural singular`, below
`= participles` irregular ones. What a rule of the finder derives (adverbs in -ly, ...) is left out.
"""

import collections
import os
import re
import sys

# Lexicographer files: animal, artifact, body, food, object, person, plant.
THINGS = {5, 6, 8, 13, 17, 18, 20}
# Substances and phenomena are seen more often than not, places and groups at times.
HALF_THINGS = {27: 0.8, 19: 0.3, 15: 0.4, 14: 0.4}
WORD = re.compile(r"[a-z]{2,18}$")
# Suffixes that the finder reads by itself, where they say the same.
BY_SUFFIX = [
    (re.compile(r".{3,}(ness|ity|ism|tion|sion|ment|ance|ence|ology|hood|ship|cy)$"), "N"),
    (re.compile(r".{3,}(ous|ful|less|able|ible|ish|ical|al|ary|ive|like|ic)$"), "a"),
    (re.compile(r".{3,}ly$"), "r"),
]


def senses(folder):
    """{lemma: {pos: [(lexicographer file, count, rank)]}}; pos is n, a, v or r."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in open(os.path.join(folder, "dict", "index.sense"), encoding="ascii"):
        key, _, rank, count = line.split()
        lemma, rest = key.split("%")
        if WORD.match(lemma):
            kind, file = rest.split(":")[:2]
            pos = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}[kind]
            found[lemma][pos].append((int(file), int(count), int(rank)))
    return found


def capitalised(folder):
    """Nouns that are written only with a capital: names, not things."""
    small, capital = set(), set()
    for line in open(os.path.join(folder, "dict", "data.noun"), encoding="ascii"):
        if line.startswith("  "):
            continue
        fields = line.split()
        for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]:
            (small if word == word.lower() else capital).add(word.lower())
    return capital - small


def classify(by_pos):
    weights = {}
    for pos, listed in by_pos.items():
        weights[pos] = sum(count + 1 / rank for _, count, rank in listed)
    if "n" in by_pos:
        thing = sum(
            (count + 1 / rank) * (1 if file in THINGS else HALF_THINGS.get(file, 0))
            for file, count, rank in by_pos["n"]
        )
        share = thing / weights["n"]
        letter = "T" if share >= 0.6 else "t" if share >= 0.25 else "N"
        weights[letter] = weights.pop("n")
    total = sum(weights.values())
    order = sorted(weights, key=lambda letter: (-weights[letter], letter))
    # What makes up less than a fiftieth is noise.
    return "".join(letter for letter in order if weights[letter] * 50 >= total)


def front_coded(words):
    last = ""
    for word in sorted(words):
        shared = min(len(os.path.commonprefix([last, word])), 9)
        yield f"{shared}{word[shared:]}"
        last = word


def main(folder):
    names = capitalised(folder)
    classes = collections.defaultdict(set)
    lexicon = senses(folder)
    for lemma, by_pos in lexicon.items():
        if lemma in names:
            by_pos.pop("n", None)
        if not by_pos:
            continue
        kind = classify(by_pos)
        rule = next((letters for suffix, letters in BY_SUFFIX if suffix.match(lemma)), None)
        if kind != rule:
            classes[kind].add(lemma)
    for kind in sorted(classes):
        print(f"= {kind}")
        print("\n".join(front_coded(classes[kind])))
    print("= irregular")
    for line in sorted(open(os.path.join(folder, "data", "noun.exc"), encoding="ascii")):
        plural, singular = line.split()[:2]
        regular = {singular + "s", singular + "es", singular[:-1] + "ies"}
        if WORD.match(plural) and singular in lexicon and plural not in regular:
            print(plural, singular)
    print("= participles")
    participles = set()
    for line in open(os.path.join(folder, "data", "verb.exc"), encoding="ascii"):
        form, verb = line.split()[:2]
        if WORD.match(form) and form not in lexicon and not re.search("(ing|ed|s)$", form):
            participles.add(form)
    print("\n".join(front_coded(participles)))


if __name__ == "__main__":
    main(sys.argv[1])
