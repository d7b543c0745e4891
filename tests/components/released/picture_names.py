"""The released names of MobileIQA and TeacherIQA, written down by the rules of the published facts and not by those of our code."""

PAIR = ("weight", "bias")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SELF = ("gamma", *(f"{c}Conv.{p}" for c in "qkv" for p in PAIR))


def mobile_iqa(backbone, prefix, projector, levels=5, opinions=3):
    """`backbone`: names inside the encoder; `prefix`: global_vit or local_cnn; `projector`: LGF or LDA."""
    out = [f"{prefix}.{name}" for name in backbone]
    out += [f"{projector}{n}.cnn{k}.{p}" for n in range(1, levels + 1) for k in (1, 2) for p in PAIR]
    for block, views in [*((f"MALs.{m}", levels) for m in range(opinions)), ("fusion_mal", opinions)]:
        out += [f"{block}.attention_module.{v}.{part}" for v in range(views) for part in SELF]
        out += [f"{block}.{kind}_attention.c_{c}.{p}" for kind in ("channel", "feature") for c in "qkv" for p in PAIR]
    return out + [f"{part}.{n}.{p}" for part in ("cnn", "fc_score") for n in (0, 3) for p in PAIR]


def inception_conv(block):
    convs = ("p1.0", "p2.0", "p2.3", "p3.0", "p3.3", "p3.6", "p4.1")
    norms = ("inception.0.p2.1", "inception.0.p3.1", "inception.0.p3.4", "inception.1")
    norms += ("tripleConv.0.TripleConv.1", "tripleConv.0.TripleConv.4", "tripleConv.1")
    convs = tuple(f"inception.0.{c}" for c in convs) + tuple(f"tripleConv.0.TripleConv.{n}" for n in (0, 3, 6))
    return [f"{block}.{c}.{p}" for c in convs for p in PAIR] + [f"{block}.{n}.{p}" for n in norms for p in NORM]


def restoring(backbone):
    """Of the network that restores, without `tn.`."""
    out = [f"resNet.{name}" for name in backbone] + inception_conv("bottom")
    out += [f"up{n}.{p}" for n in range(1, 6) for p in PAIR] + [f"out.{p}" for p in PAIR]
    return out + [name for n in range(1, 5) for name in inception_conv(f"upMC{n}.MCConv")]


def teacher_iqa(backbone):
    out = [f"tn.{name}" for name in restoring(backbone)]
    out += [f"bottomConv.{n}.{p}" for n in (0, 2, 4) for p in PAIR] + [f"upMC{n}Conv.0.{p}" for n in (1, 2, 3) for p in PAIR]
    return out + [f"enc{n}.KI.{part}" for n in (1, 2, 3) for part in SELF] + [f"iqaScore.{n}.{p}" for n in (0, 2, 4, 6, 8) for p in PAIR]


def older(name):
    """The first release's name."""
    for n in "1234":
        name = name.replace(f"upMC{n}.MCConv", f"upDAM{n}.DAMConv").replace(f"upMC{n}Conv", f"upDAM{n}Conv")
        name = name.replace(f"enc{n}.KI", f"KIM{n}.KI")
    return name
