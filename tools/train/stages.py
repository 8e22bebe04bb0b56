"""The stages: a teacher that sees quickly, the tower that learns from it, the whole model, and where things are.

A stage knows its network, what a batch costs (`loss`), and how well the network does on drawings of the style that
is held out (`score`). train.py does the rest.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from archive import accepted, bare
from drawings import PLAIN
from model import MobileVLM, VisionModel, init_tower
from questions import Comparer, Conversation, Questioner
from scenes import COLOURS, SHAPES, Object, Painter, SceneMaker, Shape, cells_of, on_white
from teacher import ConvNet, Namer, RowReader, Teacher, shown_rows

TEACHER_WIDTHS = (32, 64, 128, 256)
SMOOTHING = 0.1


@dataclass
class Plan:
    """How a stage is trained. Shares are of its pictures."""

    pictures: int
    batch: int  # pictures a process and step
    mix: dict  # kinds of scenes
    lr: float
    muon_lr: float
    floor: float  # of the cosine that the rates follow
    warmup: int  # steps
    average: float  # of the weights, a step
    ramp: tuple  # strength of the distortions at the start; share at which it is 1
    score_every: int  # pictures
    smallest: tuple = (0.5, 0.8)  # drawings, see SceneMaker


NAMING_MIX = dict(one=0.8, two=0.12, three=0.04, copies=0.04)
PLANS = dict(
    teacher=Plan(240_000, 24, NAMING_MIX, 1.5e-3, 0.0, 0.02, 100, 0.998, (0.2, 0.7), 24_000),
    tower=Plan(300_000, 32, NAMING_MIX, 1.2e-3, 0.016, 0.03, 60, 0.998, (0.2, 0.5), 30_000),
    whole=Plan(
        150_000, 24, dict(one=0.5, two=0.17, three=0.08, copies=0.08, shapes=0.17),
        1.5e-3, 0.02, 0.02, 60, 0.997, (0.7, 0.1), 20_000,
    ),
    places=Plan(
        120_000, 24, dict(one=0.36, two=0.22, three=0.10, copies=0.06, shapes=0.26),
        1e-3, 0.013, 0.02, 60, 0.997, (1.0, 0.1), 20_000, (0.35, 0.55),
    ),
    pairs=Plan(
        84_000, 24, dict(one=0.30, two=0.38, three=0.07, copies=0.06, shapes=0.19),
        8e-4, 0.010, 0.02, 60, 0.997, (1.0, 0.1), 14_000, (0.35, 0.55),
    ),
)  # fmt: skip


class Stage:
    """Common to all: random scenes, one painter for each size of pictures."""

    def __init__(self, plan, train, held_out, sizes, seed):
        self.plan, self.train, self.held_out, self.sizes, self.seed = plan, train, held_out, sizes, seed
        self.maker = SceneMaker(train, seed, plan.smallest)
        self.painters = {}

    def seeded(self, step, rank):
        """Makes a step's scenes depend on nothing but the seed, so that a run that is resumed goes on as it would have."""
        number = (self.seed * 1_000_003 + step) * 64 + rank
        self.maker.random.seed(number)
        torch.manual_seed(number)
        for painter in self.painters.values():
            painter.generator.manual_seed(number)

    def batch(self, progress, size, step, rank, erase, prepare=None):
        """`prepare(scenes)` may ask about the scenes and change them before they are painted."""
        start, full = self.plan.ramp
        strength = min(1.0, start + (1 - start) * progress / full)
        if size not in self.painters:
            self.painters[size] = Painter(self.train, size, 0)
        self.seeded(step, rank)
        painter = self.painters[size]
        painter.strength = self.maker.strength = strength
        scenes = self.maker.scenes(self.plan.batch, self.plan.mix)
        if prepare:
            prepare(scenes)
        with torch.autocast("cpu", enabled=False):
            return painter.paint(scenes, self.sizes.patch, erase)

    def naming_loss(self, head, rows, batch, keep=None):
        """Every object's noun, and at half weight its code point -> loss, logits of nouns, which objects stand alone."""
        alone = torch.tensor([batch.scenes[i].kind == "one" for i in batch.owner.tolist()])
        shown = shown_rows(batch.cover, rows.shape[1], alone, keep[batch.owner] if keep is not None else None)
        noun, code_point = head(rows, batch.owner, shown)
        loss = F.cross_entropy(noun, self.train.noun[batch.drawing], label_smoothing=SMOOTHING)
        loss = loss + 0.5 * F.cross_entropy(code_point, self.train.code_point[batch.drawing], label_smoothing=SMOOTHING)
        return loss, noun, alone

    @torch.no_grad()
    def score(self, net):
        """Share of the held-out drawings that `named` names: everyday nouns, and all."""
        right, everyday = [], self.held_out.everyday[self.held_out.noun]
        for chosen in torch.arange(len(self.held_out.rows)).split(64):
            right += self.named(net, chosen, on_white(self.held_out, chosen, self.sizes.image))
        right = torch.tensor(right, dtype=torch.float32)
        return dict(everyday=right[everyday].mean().item(), all=right.mean().item())

    def named(self, net, chosen, pictures):
        """Whether the naming head names each of the held-out drawings `chosen`, which `pictures` show."""
        return (net.head(net.body(pictures)[0])[0].argmax(1) == self.held_out.noun[chosen]).tolist()


class TeacherStage(Stage):
    def __init__(self, *common):
        super().__init__(*common)
        self.net = Namer(ConvNet(TEACHER_WIDTHS), TEACHER_WIDTHS[-1], self.train)
        self.groups = [(self.net, 1.0)]

    def loss(self, progress, step, rank):
        batch = self.batch(progress, 112, step, rank, erase=True)
        loss = self.naming_loss(self.net.head, self.net.body(batch.pictures)[0], batch)[0]
        return loss, dict(name=loss)


class TowerStage(Stage):
    """Small pictures first, then those of the final size; part of the patches, and at the end all of them."""

    LARGE, FULL = 0.6, 0.94

    def __init__(self, *common, teacher):
        super().__init__(*common)
        tower = VisionModel(self.sizes)
        init_tower(tower, self.sizes)
        self.teacher = Teacher(teacher)
        self.net = Namer(tower, self.sizes.vision_width, self.train, TEACHER_WIDTHS)
        self.groups = [(self.net, 1.0)]

    def keep(self, batch, progress):
        """-> [B, K] patches to read: those with something on them rather than empty ones."""
        if progress >= self.FULL:
            return None
        n_pictures, n_patches = len(batch.scenes), batch.cover.shape[1]
        covered = torch.zeros(n_pictures, n_patches).index_add_(0, batch.owner, batch.cover)
        worth = torch.rand(n_pictures, n_patches) + 0.8 * (covered > 0.02)
        return worth.topk(min(64, n_patches // 2), 1).indices

    def loss(self, progress, step, rank):
        size = self.sizes.image if progress >= self.LARGE else 112
        batch = self.batch(progress, size, step, rank, erase=True)
        keep = self.keep(batch, progress)
        last, middle = self.net.body(batch.pictures, keep)
        naming, logits, alone = self.naming_loss(self.net.head, last, batch, keep)
        wanted, teacher_last, teacher_middle = self.teacher.targets(batch.pictures, batch.owner[alone], size // self.sizes.patch)
        likeness = self.net.likeness(last, middle, teacher_last, teacher_middle, keep)
        soft = F.kl_div(logits[alone].log_softmax(1), wanted.softmax(1), reduction="batchmean")
        return naming + 2 * likeness + soft, dict(name=naming, likeness=likeness, teacher=soft)


def whole_net(sizes, named_tower):
    """A new model on a trained tower, beside the tower's naming head."""
    net = nn.ModuleDict(dict(vlm=MobileVLM(sizes), head=named_tower.head))
    net["vlm"].tower.load_state_dict(named_tower.body.state_dict())
    return net


class WholeStage(Stage):
    """Questions and answers. The tower stays as it is for the first quarter, then follows at a low rate; its naming head
    stays too, at half weight."""

    FROZEN, TOWER_RATE, HEAD_WEIGHT, HINT = 0.25, 0.25, 0.5, 0.5
    QUESTIONER, ABSENT = Questioner, 0.2

    def __init__(self, *common, net, tokenizer):
        super().__init__(*common)
        self.net = net
        self.groups = [
            (nn.ModuleDict({k: v for k, v in net["vlm"].model.items() if k != "vision_tower"}), 1.0),
            (nn.ModuleDict(dict(tower=net["vlm"].tower, head=net["head"])), self.TOWER_RATE),
        ]
        self.conversation = Conversation(tokenizer)
        self.questioner = self.QUESTIONER(self.train, self.maker.random, self.ABSENT)
        self.before = torch.tensor([self.conversation.before])
        names = [self.conversation.reply(self.questioner.with_article(noun) + ".") for noun in self.train.nouns]
        self.names = torch.full((len(names), max(map(len, names)) + 1), -1)  # tokens of each noun's answer
        for row, name in zip(self.names, names):
            row[: len(name)] = torch.tensor(name)

    def asked(self, scenes):
        """Questions for each scene. Where a colour is asked for, the drawing keeps its own."""
        r, asked = self.maker.random, []
        for scene in scenes:
            if scene.kind == "one":
                thing = scene.objects[0]
                if thing.look == PLAIN and self.train.main_colour(thing.drawing)[1] >= 0.5 and r.random() < 0.4:
                    thing.recoloured = False
            asked.append(self.questioner.ask(scene, r.choice((1, 2, 3))))
        return asked

    def hints(self, said, ids, logits):
        """What the naming head thinks an answer's next token is: [n, vocab], from its logits of nouns [n, nouns]. Nouns whose
        name does not begin as the answer so far are out of the question."""
        belief, hints = logits.detach().float().softmax(1), torch.zeros(len(said), self.sizes.vocab)
        for hint, token, row, right in zip(hints, said, belief, ids):
            k = len(token.before)
            there = (self.names[:, :k] == torch.tensor(token.before)).all(1) & (self.names[:, k] >= 0)
            hint.index_add_(0, self.names[there, k], row[there])
            hint[right] += 1e-6
        return hints / hints.sum(1, keepdim=True)

    def answer_loss(self, batch, asked, rows, logits):
        """Mean loss of the answers' tokens, and of each kind; what was said, and who looked where meanwhile. A name is learnt
        half from the word, half from what the naming head thinks that it might be: it knows which things look alike."""
        turns = [self.conversation.turns(a) for a in asked]
        ids = torch.zeros(len(turns), max(len(t) for t, _ in turns), dtype=torch.long)
        for i, (tokens, _) in enumerate(turns):
            ids[i, : len(tokens)] = torch.tensor(tokens)
        said = [(i, s) for i, (_, row) in enumerate(turns) for s in row]
        owner, at = torch.tensor([(i, s.at - 1) for i, s in said]).t()
        wanted = torch.tensor([turns[i][0][s.at] for i, s in said])
        vlm = self.net["vlm"]
        states, looks = vlm(self.before, rows, ids)
        scores = vlm.head(states[owner, at]).float().log_softmax(1)
        each = F.nll_loss(scores, wanted, reduction="none")
        number = {pair: row for row, pair in enumerate(zip(batch.owner.tolist(), batch.number))}
        named = [j for j, (_, s) in enumerate(said) if s.asked.named]
        if named:
            rows = torch.tensor([number[said[j][0], said[j][1].asked.about[0]] for j in named])
            hints = self.hints([said[j][1] for j in named], wanted[named], logits[rows])
            soft = -(hints * scores[named]).sum(1)
            each = each.index_add(0, torch.tensor(named), self.HINT * (soft - each[named]))
        kinds = [s.asked.kind for _, s in said]
        parts = {k: each[[j for j, kind in enumerate(kinds) if kind == k]].mean() for k in sorted(set(kinds))}
        return each.mean(), parts, said, looks

    def loss(self, progress, step, rank):
        asked = []
        batch = self.batch(progress, self.sizes.image, step, rank, False, lambda scenes: asked.extend(self.asked(scenes)))
        with torch.set_grad_enabled(progress >= self.FROZEN):
            features = self.net["vlm"].tower(batch.pictures)[0]
        naming, logits, _ = self.naming_loss(self.net["head"], features, batch)
        rows = self.net["vlm"].model["mm_projector"](features)
        answers, parts, said, looks = self.answer_loss(batch, asked, rows, logits)
        more, more_parts = self.more_loss(batch, rows, said, looks)
        return answers + self.HEAD_WEIGHT * naming + more, dict(parts, answer=answers, head=naming, **more_parts)

    def more_loss(self, batch, rows, said, looks):
        """What a stage demands besides."""
        return 0, {}

    def answers(self, net, pictures, question, n=16):
        """Greedy answers to one question about each picture."""
        vlm = net["vlm"]
        rows = vlm.rows_of(pictures)[0]
        prompt = self.conversation.prompt(question)
        ids = torch.tensor([prompt] * len(pictures))
        for _ in range(n):
            logits = vlm.head(vlm(self.before, rows, ids)[0][:, -1])[:, : len(self.conversation.pieces)]
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
            if (ids[:, len(prompt) :] == self.conversation.EOS).any(1).all():
                break
        return [self.conversation.text(row[len(prompt) :]) for row in ids.tolist()]

    def named(self, net, chosen, pictures):
        """Whether the answer to "What is this?" is exactly a name of each drawing."""
        concepts = [self.train.concepts[self.held_out.rows[i]["concept"]] for i in chosen.tolist()]
        said = self.answers(net, pictures, "What is this?")
        return [bare(s) in accepted(concept) for s, concept in zip(said, concepts)]


class PlacesStage(WholeStage):
    """More of smaller drawings, of rows and of shapes. Two heads of the third layer are shown where to look, which answers
    about one thing of several need most; and the rows of a thing have to tell at a glance what it is."""

    FROZEN, ABSENT = 0, 0.35
    LOOK, LOOK_LAYER, LOOK_HEADS = 0.3, 2, 2
    READ = 0.3

    def __init__(self, *common, net, tokenizer):
        super().__init__(*common, net=net, tokenizer=tokenizer)
        if "reader" not in net:
            net["reader"] = RowReader(self.sizes.hidden, len(self.train.nouns), len(SHAPES), len(COLOURS))
        self.groups[0][0]["reader"] = net["reader"]

    def more_loss(self, batch, rows, said, looks):
        cells = [[cells_of(thing, self.sizes.grid // 2) for thing in s.objects or s.shapes] for s in batch.scenes]
        look = self.look_loss(self.looked(cells, said, looks[self.LOOK_LAYER][:, : self.LOOK_HEADS]))
        read = self.read_loss(batch.scenes, cells, rows)
        return self.LOOK * look + self.READ * read, dict(look=look, read=read)

    @staticmethod
    def looked(cells, said, looks):
        """looks [B, heads, ids, rows] -> how much of its look each head has, before each of an answer's tokens, at what the
        answer tells of [n, heads]; [1, heads] of zeros where no answer tells of anything."""
        shown = [(i, s) for i, s in said if s.asked.about]
        if not shown:
            return 0 * looks[:1, :, 0].sum(2)
        there = torch.stack([torch.stack([cells[i][k] for k in s.asked.about]).amax(0) for i, s in shown])
        owner, at = torch.tensor([(i, s.at - 1) for i, s in shown]).t()
        return (looks[owner, :, at].float() * there[:, None]).sum(2)

    def look_loss(self, shares):
        return -(shares.mean(1) + 1e-3).log().mean()

    def read_loss(self, scenes, cells, rows):
        """Nouns of objects, forms and colours of shapes from their rows alone."""
        reader, forms, colours = self.net["reader"], list(SHAPES), list(COLOURS)
        owner = torch.tensor([i for i, parts in enumerate(cells) for _ in parts])
        pooled = reader(rows, owner, torch.stack([cell for parts in cells for cell in parts]))
        things = [thing for s in scenes for thing in s.objects or s.shapes]
        objects, shapes = ([thing for thing in things if isinstance(thing, kind)] for kind in (Object, Shape))
        drawn = torch.tensor([isinstance(thing, Object) for thing in things])
        loss = 0 * sum(p.sum() for p in reader.parameters())  # every process has the same gradients to share
        if objects:
            nouns = self.train.noun[[thing.drawing for thing in objects]]
            loss = loss + F.cross_entropy(reader.noun(pooled[drawn]), nouns, label_smoothing=SMOOTHING)
        if shapes:
            loss = loss + F.cross_entropy(reader.form(pooled[~drawn]), torch.tensor([forms.index(s.kind) for s in shapes]))
            loss = loss + F.cross_entropy(reader.colour(pooled[~drawn]), torch.tensor([colours.index(s.colour) for s in shapes]))
        return loss


class PairsStage(PlacesStage):
    """Most pictures are rows of two, and of every picture it is asked whether something is there. Each of the two heads has to
    look at the right place, not one of them: else one looks left and one looks right whatever was asked, and an answer's
    first word, which is "a" most of the time, does not know of which thing it tells."""

    QUESTIONER, TOWER_RATE = Comparer, 0.35

    def look_loss(self, shares):
        return -(shares + 1e-3).log().mean()
