"""True questions and answers about a scene, and the conversation's text as ids."""
from typing import NamedTuple

import sentencepiece

from scenes import SHAPES

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
NAMING = ("What is this?", "What is in the picture?", "Name the object.", "What do you see?")
PLACES = (
    {2: ("on the left", "on the right"), 3: ("on the left", "in the middle", "on the right")},
    {2: ("at the top", "at the bottom"), 3: ("at the top", "in the middle", "at the bottom")},
)


class Asked(NamedTuple):
    question: str
    answer: str
    kind: str
    about: tuple = ()  # numbers of the objects, or of the shapes, that the answer tells of
    named: bool = False  # the answer is the name of the one object, and nothing else
    given: str = ""  # how the answer begins, which is not for learning


class Said(NamedTuple):
    """One token of an answer."""

    at: int  # in the conversation's ids
    asked: Asked
    before: tuple  # the answer's tokens before it


def plural(noun):
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")


def listed(names):
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


class Questioner:
    """True questions about scenes, with their answers."""

    COMPARED = 0.45, 0.0  # how often yes or no is asked of single objects, and of rows

    def __init__(self, drawings, random, absent):
        """`absent`: how often shapes are counted that need not be there."""
        self.drawings, self.random, self.absent = drawings, random, absent
        self.nouns = drawings.nouns
        self.truths = {noun: self._truths(row) for noun, row in drawings.concepts.items()}

    @staticmethod
    def _truths(row):
        """Whatever may be said to be there when the noun is: its other names and its broader terms."""
        return {w.lower() for w in [row["concept"]] + row["accepted_answers"].split("|") + row["broader"].split("|") if w}

    def with_article(self, noun):
        article = "a" if noun == "TV" else self.drawings.concepts[noun]["article"]
        noun = noun if noun == "TV" else noun.lower()
        return f"{article} {noun}" if article else noun

    def noun_of(self, thing):
        return self.drawings.rows[thing.drawing]["concept"]

    def ask(self, scene, n):
        """At most n questions, the scene's main one among them; no two of a kind but of `where` and `countq`."""
        r = self.random
        main, others = getattr(self, "_" + scene.kind)(scene)
        if r.random() < 0.3:
            others.append(Asked("What colour is the background?", scene.background + ".", "bg"))
        r.shuffle(others)
        asked = ([main] if main else []) + others
        asked = asked[:n]
        r.shuffle(asked)
        return [a._replace(question=self._reworded(a.question)) for a in asked]

    def _reworded(self, question):
        """Now and then as people type: without capital, question mark, or in American spelling."""
        r = self.random
        if r.random() < 0.3:
            question = question.replace("colour", "color")
        if r.random() < 0.15:
            question = question[0].lower() + question[1:]
        if r.random() < 0.05:
            question = question.rstrip("?.")
        if r.random() < 0.05:
            question = question.replace("What is", "What's").replace("what is", "what's")
        return question

    def _one(self, scene):
        r, thing = self.random, scene.objects[0]
        noun = self.noun_of(thing)
        named = self.with_article(noun)
        others = []
        colour, _ = self.drawings.main_colour(thing.drawing)
        if not thing.recoloured and colour:
            others.append(Asked(f"What colour is the {noun}?", colour + ".", "colour", (0,)))
        if r.random() < self.COMPARED[0]:
            others.append(self._yes_or_no(scene))
        if r.random() < 0.1:
            others.append(Asked("How many things are there?", "one.", "count", (0,)))
        return Asked(r.choice(NAMING), named + ".", "name", (0,), True), others

    def _yes_or_no(self, scene):
        noun = other = self.noun_of(scene.objects[0])
        if self.random.random() < 0.5:
            other = self._absent_noun(noun)
        word = "yes" if other == noun else "no"
        return Asked(f"Is there {self.with_article(other)}?", f"{word}, there is {self.with_article(noun)}.", "yesno")

    def _absent_noun(self, *there):
        """A noun that says nothing true of those that are there; of few nouns there may be none, then the first of them."""
        truths = set().union(*(self.truths[noun] for noun in there))
        for _ in range(100):
            other = self.random.choice(self.nouns)
            if not self.truths[other] & truths:
                return other
        return there[0]

    def _row(self, scene):
        r, n = self.random, len(scene.objects)
        named = [self.with_article(self.noun_of(o)) for o in scene.objects]
        places = PLACES[scene.vertical][n]
        others = [Asked(f"What is {place}?", name + ".", "where", (i,), True) for i, (place, name) in enumerate(zip(places, named))]
        if r.random() < 0.4:
            others.append(Asked("How many things are there?", NUMBERS[n] + ".", "count", tuple(range(n))))
        if r.random() < 0.3:
            others.append(Asked("What do you see?", listed(named) + ".", "list"))
        if self.COMPARED[1] and r.random() < self.COMPARED[1]:
            others.append(self._yes_or_no(scene))
        return None, others

    def _copies(self, scene):
        n = len(scene.objects)
        noun = self.noun_of(scene.objects[0])
        others = []
        if self.drawings.concepts[noun]["article"] and noun != "TV":
            others.append(Asked(f"How many {plural(noun.lower())} are there?", NUMBERS[n] + ".", "copies", tuple(range(n))))
        return Asked("How many things are there?", NUMBERS[n] + ".", "count", tuple(range(n))), others

    def _shapes(self, scene):
        r, others = self.random, []
        there = [(s.kind, s.colour) for s in scene.shapes]
        if r.random() < 0.6:
            others.append(Asked("How many shapes are there?", NUMBERS[len(there)] + ".", "count", tuple(range(len(there)))))
        for _ in range(2):
            kind, colour = r.choice(there) if r.random() < 1 - self.absent else (r.choice(list(SHAPES)), r.choice(there)[1])
            these = tuple(i for i, shape in enumerate(there) if shape == (kind, colour))
            others.append(Asked(f"How many {colour} {plural(kind)} are there?", NUMBERS[len(these)] + ".", "countq", these))
        kind, colour = r.choice(there)
        these = tuple(i for i, (k, _) in enumerate(there) if k == kind)
        if len({there[i][1] for i in these}) == 1:
            subject = f"is the {kind}" if len(these) == 1 else f"are the {plural(kind)}"
            others.append(Asked(f"What colour {subject}?", colour + ".", "shcol", these))
        kind, colour = r.choice(there)
        these = tuple(i for i, (_, c) in enumerate(there) if c == colour)
        if len({there[i][0] for i in these}) == 1:
            others.append(Asked(f"Which shape is {colour}?", f"a {kind}.", "shname", these))
        return None, others


class Comparer(Questioner):
    """Asks far more often whether something is there, of rows too. Sometimes a false "yes," is given, after which nothing but the
    noun that was asked for can follow: drawings to learn from are named so well that an answer would never learn to repeat it."""

    COMPARED, FALSE_YES = (0.8, 0.5), 0.12

    def _yes_or_no(self, scene):
        r, nouns = self.random, [self.noun_of(thing) for thing in scene.objects]
        at, present = r.randrange(len(nouns)), r.random() < 0.5
        asked = nouns[at] if present else self._absent_noun(*nouns)
        if asked in nouns:
            at, present = nouns.index(asked), True
        false_yes = not present and r.random() < self.FALSE_YES
        yes = present or false_yes
        named = listed([self.with_article(noun) for noun in ([asked] if yes else nouns)])
        answer = f"{'yes' if yes else 'no'}, there is {named}."
        return Asked(f"Is there {self.with_article(asked)}?", answer, "yesno", (at,) if present else (), given="yes," if false_yes else "")


class Conversation:
    """The template conv_mode "short" as ids:  USER: <image>\\nQUESTION ASSISTANT: ANSWER</s>USER: ..."""

    BOS, EOS = 1, 2

    def __init__(self, tokenizer_file):
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=tokenizer_file)
        self.before = [self.BOS] + self.pieces.encode("USER: ")

    def prompt(self, question, first=True):
        """What follows the picture (or an earlier turn) up to the answer."""
        start = "\n" if first else "USER: "
        return self.pieces.encode(f"{start}{question} ASSISTANT:")

    def reply(self, answer):
        return self.pieces.encode(answer) + [self.EOS]

    def turns(self, asked):
        """[Asked] -> ids, and the tokens of the answers among them that are for learning."""
        ids, said = [], []
        for i, turn in enumerate(asked):
            ids += self.prompt(turn.question, i == 0)
            reply = self.reply(turn.answer)
            given = len(self.pieces.encode(turn.given))
            said += [Said(len(ids) + k, turn, tuple(reply[:k])) for k in range(given, len(reply))]
            ids += reply
        return ids, said

    def text(self, ids):
        return self.pieces.decode(ids[: ids.index(self.EOS)] if self.EOS in ids else ids).strip()
