"""The project's own text: small sentences about pictures, composed from word lists.

    sentences.py -> make_tokenizer.py (training text), make_tokens.py (lines to encode),
                    make_cases.py (the text model and its perplexity)
"""
import random

ANIMALS = ["cat", "dog", "horse", "rabbit", "owl", "goose", "fox", "hedgehog", "snail", "donkey",
           "sparrow", "tortoise"]
THINGS = ["house", "boat", "bicycle", "lamp", "basket", "kettle", "bridge", "window", "ladder",
          "umbrella", "teapot", "lantern"]
COLOURS = ["red", "green", "blue", "yellow", "grey", "white", "black", "orange", "purple", "brown"]
SIZES = ["small", "large", "tall", "round", "old", "shiny", "narrow", "heavy"]
PLACES = ["on the left", "on the right", "in the middle", "under a tree", "near the river",
          "behind the wall", "at the top of the hill", "in front of the door"]
COUNTS = ["one", "two", "three", "four", "five", "six", "seven", "a few", "many"]
ACTIONS = ["sleeps", "waits", "looks at the camera", "drinks water", "hides", "runs away",
           "stands still", "watches the rain"]
ODD = ["The sign says \"café\" in white paint.", "Is it 7 o'clock, or 7:45?",
       "The price is £3.20!",
       "No. 12 (the naïve owl) isn't here; it's at http://example.org/owl_12.",
       "Size: 640 x 480 pixels, 24 bits, {rgb}, 100% sharp & bright.",
       "for (i = 0; i < 10; i++) { draw(i); }",
       "Zebra, Quartz, Jackdaw, Kiwi, Violet, Xylophone, Yacht, Umbrella, Geese, Ferry, Hill",
       "#1 @home ~5 km | 3 * 4 = 12 + 0 ^ $8 \\ /"]

# The words of the prompt's system text, so that it is not spelt out letter by letter.
SPEECH = ["A user who is curious asks the assistant a question about the picture.",
          "The user's questions and the assistant's answers: detailed, helpful, polite.",
          "An artificial answer gives no intelligence; the chat between them gives details."]
GAPS = ["a  wide   gap", "left    right", "        far in"]   # so that runs of spaces become pieces


def plural(noun):
    """English plural of the nouns listed above."""
    odd = {"goose": "geese", "fox": "foxes"}
    return odd.get(noun, noun + "s")


def sentence(rng):
    """One sentence, drawn with the given random.Random."""
    a, b = rng.sample(ANIMALS, 2)
    thing, size, place = rng.choice(THINGS), rng.choice(SIZES), rng.choice(PLACES)
    colour, other = rng.sample(COLOURS, 2)
    count, number = rng.choice(COUNTS[1:]), rng.randrange(2, 100)
    return rng.choice([
        f"The {colour} {a} {rng.choice(ACTIONS)} {place}.",
        f"There are {count} {plural(a)} and one {size} {b} in the picture.",
        f"How many {plural(a)} are there? There are {number}.",
        f"What colour is the {thing}? It is {colour}.",
        f"A {size} {thing} stands {place}, and the {a} {rng.choice(ACTIONS)}.",
        f"Is the {a} larger than the {b}? No, the {b} is larger.",
        f"{count.capitalize()} {other} {plural(thing)} are {place}.",
        f"In this picture a {colour} {a} sits beside a {size} {other} {thing}.",
        f"The picture shows {number} {plural(thing)}; the {size} one is {colour}.",
        f"Behind the {thing} there is a {size} {b}, and it {rng.choice(ACTIONS)}.",
    ])


def paragraphs(count, seed):
    """`count` paragraphs of three to six sentences, one a line."""
    rng = random.Random(seed)
    for _ in range(count):
        yield " ".join(sentence(rng) for _ in range(rng.randrange(3, 7)))


def text(characters, seed):
    """Whole paragraphs, together a little more than so many characters."""
    out, size = [], 0
    for paragraph in paragraphs(characters, seed):
        if size > characters:
            break
        out.append(paragraph)
        size += len(paragraph) + 1
    return "\n".join(out) + "\n"
