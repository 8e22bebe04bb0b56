"""What only training needs: the small convolutional teacher, and the heads that name what the rows show."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class ConvNet(nn.Module):
    """Residual network that sees pictures at 64 pixels: [B, 3, S, S] -> [B, 16, widths[3]], [B, 64, widths[2]], the
    last map (4 x 4) and the one before (8 x 8) as rows."""

    INPUT = 64

    def __init__(self, widths):
        super().__init__()
        self.widths = widths
        self.stem = self._conv(3, widths[0], 2)
        self.stages = nn.ModuleList(
            nn.ModuleDict(dict(down=self._conv(a, b, 2), first=self._conv(b, b, 1), second=self._conv(b, b, 1)))
            for a, b in zip(widths, widths[1:])
        )
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def _conv(n_in, n_out, stride):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, pictures, keep=None):
        assert keep is None, "a convolution sees all of the picture"
        if pictures.shape[-1] != self.INPUT:
            pictures = F.interpolate(pictures, size=(self.INPUT,) * 2, mode="bilinear", antialias=True, align_corners=False)
        x, maps = F.relu(self.stem(pictures.contiguous(memory_format=torch.channels_last))), []
        for stage in self.stages:
            x = F.relu(stage["down"](x))
            x = F.relu(x + stage["second"](F.relu(stage["first"](x))))
            maps.append(x)
        return tuple(m.flatten(2).transpose(1, 2) for m in (maps[-1], maps[-2]))


class NamingHead(nn.Module):
    """Names an object from the rows that show it: a learned attention over them, then noun and code point."""

    def __init__(self, width, n_nouns, n_code_points):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, 1, bias=False)
        self.noun, self.code_point = nn.Linear(width, n_nouns), nn.Linear(width, n_code_points)
        nn.init.zeros_(self.query.weight)
        for m in (self.noun, self.code_point):
            nn.init.normal_(m.weight, std=0.02)
            nn.init.zeros_(m.bias)

    def forward(self, rows, owner=None, shown=None):
        """rows [B, N, D]; with `owner` [O] and `shown` [O, N]: of each object its picture and which rows show it."""
        rows = self.norm(rows)
        score = self.query(rows)[..., 0].float()
        if owner is not None:
            score = score[owner].masked_fill(~shown, -1e4)
            rows = rows[owner]
        pooled = torch.bmm(score.softmax(1)[:, None], rows.float())[:, 0]
        return self.noun(pooled), self.code_point(pooled)


class RowReader(nn.Module):
    """What the decoder's rows of a thing should tell at a glance: the noun of a drawing; form and colour of a shape."""

    def __init__(self, width, n_nouns, n_forms, n_colours):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.noun, self.form, self.colour = (nn.Linear(width, n) for n in (n_nouns, n_forms, n_colours))

    def forward(self, rows, owner, cells):
        """Means of rows [B, N, D] over the cells [O, N] of each thing, whose picture is owner [O] -> [O, D]"""
        rows = self.norm(rows).float()[owner]
        return torch.bmm(cells[:, None] / cells.sum(1)[:, None, None], rows)[:, 0]


def shown_rows(cover, n_rows, whole, keep=None):
    """cover [O, P] of patches -> [O, N] bool: rows of a coarser grid (or of the patches kept) that show the object;
    all of them where the object is alone in its picture."""
    if n_rows != cover.shape[1] and keep is None:
        side, grid = int(cover.shape[1] ** 0.5), int(n_rows**0.5)
        cover = F.adaptive_avg_pool2d(cover.view(-1, 1, side, side), grid).flatten(1)
    shown = cover > 0.02
    shown[whole] = True
    if keep is not None:
        shown = shown.gather(1, keep)
    shown[~shown.any(1)] = True
    return shown


class Teacher:
    """A trained ConvNet with its head, frozen."""

    def __init__(self, net):
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def targets(self, pictures, alone, grid):
        """-> logits of nouns for pictures `alone` [n], and the two maps as normalised rows on a grid x grid."""
        last, middle = self.net.body(pictures)
        logits = self.net.head(last[alone])[0].float()
        return logits, self._rows(last, grid), self._rows(middle, grid)

    @staticmethod
    def _rows(rows, grid):
        batch, n, width = rows.shape
        side = int(n**0.5)
        maps = rows.float().transpose(1, 2).reshape(batch, width, side, side)
        maps = F.interpolate(maps, size=(grid, grid), mode="bilinear", align_corners=False)
        return F.layer_norm(maps.flatten(2).transpose(1, 2), (width,))


class Namer(nn.Module):
    """A body (ConvNet or vision tower) with its naming head, and what maps its rows to a teacher's."""

    def __init__(self, body, width, drawings, teacher_widths=None):
        super().__init__()
        self.body = body
        self.head = NamingHead(width, len(drawings.nouns), drawings.n_code_points)
        if teacher_widths:
            self.to_last, self.to_middle = nn.Linear(width, teacher_widths[-1]), nn.Linear(width, teacher_widths[-2])

    def likeness(self, last, middle, teacher_last, teacher_middle, keep=None):
        """How far the rows are from the teacher's."""
        if keep is not None:
            teacher_last, teacher_middle = (
                t.gather(1, keep[..., None].expand(-1, -1, t.shape[-1])) for t in (teacher_last, teacher_middle)
            )
        middle = F.layer_norm(middle, middle.shape[-1:])
        return F.mse_loss(self.to_last(self.head.norm(last)).float(), teacher_last) + 0.5 * F.mse_loss(
            self.to_middle(middle).float(), teacher_middle
        )
