"""The released names of MobileIQA and TeacherIQA, written down by the rules of the published facts and not by those of our code."""

PAIR = ("weight", "bias")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SELF = ("gamma", *(f"{c}Conv.{p}" for c in "qkv" for p in PAIR))


def normed(conv, norm):
    """A convolution without bias, and its batch norm."""
    return [f"{conv}.weight", *(f"{norm}.{p}" for p in NORM)]


def mobilenet_v3():
    """Inside the student's encoder (facts A6): seven groups of blocks that widen, filter and narrow, some with squeeze-and-excitation."""
    out = normed("conv_stem", "bn1")
    for group, (count, excited) in enumerate([(1, False), (2, False), (3, True), (4, False), (2, True), (3, True), (1, False)]):
        for i in range(count):
            block = f"blocks.{group}.{i}"
            convs = {0: ("conv_dw", "conv_pw"), 6: ("conv",)}.get(group, ("conv_pw", "conv_dw", "conv_pwl"))
            out += [name for n, conv in enumerate(convs, 1) for name in normed(f"{block}.{conv}", f"{block}.bn{n}")]
            out += [f"{block}.se.conv_{part}.{p}" for part in ("reduce", "expand") if excited for p in PAIR]
    return out


def mobilevit_v2():
    """Inside the teacher's encoder (facts A6): stages of convolutions, the last three each with a transformer behind them."""
    out = normed("stem.conv", "stem.bn")
    for stage, (blocks, depth) in enumerate([(1, 0), (2, 0), (1, 2), (1, 4), (1, 3)]):
        for i in range(blocks):
            parts = (f"stages_{stage}.{i}.{conv}" for conv in ("conv1_1x1", "conv2_kxk", "conv3_1x1"))
            out += [name for part in parts for name in normed(f"{part}.conv", f"{part}.bn")]
        if depth:
            block = f"stages_{stage}.{blocks}"
            out += [*normed(f"{block}.conv_kxk.conv", f"{block}.conv_kxk.bn"), f"{block}.conv_1x1.weight"]
            layers = ("norm1", "attn.qkv_proj", "attn.out_proj", "norm2", "mlp.fc1", "mlp.fc2")
            out += [f"{block}.transformer.{i}.{layer}.{p}" for i in range(depth) for layer in layers for p in PAIR]
            out += [*(f"{block}.norm.{p}" for p in PAIR), *normed(f"{block}.conv_proj.conv", f"{block}.conv_proj.bn")]
    return out


def resnet50():
    """TeacherIQA's encoder (facts B3): torchvision's names, without the classifier."""
    out = normed("conv1", "bn1")
    for layer, count in enumerate([3, 4, 6, 3], 1):
        for i in range(count):
            block = f"layer{layer}.{i}"
            out += [name for n in (1, 2, 3) for name in normed(f"{block}.conv{n}", f"{block}.bn{n}")]
            out += normed(f"{block}.downsample.0", f"{block}.downsample.1") if i == 0 else []
    return out


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
