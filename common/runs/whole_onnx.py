"""A whole network as ONNX: what comes before it and after it stands in the file too.

    picture uint8 [H, W, 3] -> preparation -> the network on one input -> answer

The two ends are written in ONNX's own text, of standard operators alone. They do what
`common.data.images.prepared` and `common.pictures.answers` do in torch, but for rounding. `Resize` needs
`exclude_outside`: without it, pixels of the edge count for those beyond it too.
"""

import re
from typing import TYPE_CHECKING

from common.base.preparation import GREY, PICTURE_WHITE, Preparation
from common.detection.coding import VARIANCES
from common.detection.nms import STANDARD
from common.pictures.answers import NO_CLASS

if TYPE_CHECKING:
    from onnx import ModelProto

# the input of a whole network, and its outputs by its task
PICTURE = "picture"
ANSWERS = {
    "classification": ("probabilities",),
    "segmentation": ("classes",),
    "detection": ("boxes", "scores", "labels"),
}
# what a file says of them
WHOLE_INPUT = "picture: one decoded picture of any size, uint8 [height, width, 3], RGB, upright"
WHOLE_MEANINGS = {
    "classification": "probabilities: one for each class [classes]",
    "segmentation": "classes: the number of each pixel's class, uint8 [height, width]; 255 for none",
    "detection": "boxes [n, 4]: corners x0, y0, x1, y1 in pixels of the picture; scores [n]: their "
    "probabilities, the largest first, those above `score`; labels [n]",
}
NEWLINE = "\n        "
RESIZE = (
    'Resize <mode = "linear", antialias = 1, exclude_outside = 1, '
    'coordinate_transformation_mode = "half_pixel">'
)


def with_ends(
    core: "ModelProto", task: str, preparation: Preparation, classes: int, score: float
) -> "ModelProto":
    """The network of a file from picture to answer.

    Args:
        core: takes float32 [b, C, h, w] as the data set stores it, and gives the network's outputs; a
            detector its priors too (`common.pictures.answers.WithPriors`).
        task: a key of `ANSWERS`.
        preparation: of a picture.
        classes: of the data set; a network may have more outputs.
        score: of a detector, the probability above which a box is given.
    """
    from onnx import compose

    network = compose.add_prefix(core, "network/")
    given = [one.name for one in network.graph.output]
    head, tail = (
        _parsed(text, core) for text in (_head(preparation), _tail(task, preparation, classes, score, core))
    )
    joined = compose.merge_models(
        head,
        network,
        io_map=[("stored", network.graph.input[0].name)],
        outputs=["whole_size", "filled_size", *given],
    )
    ends = ["whole_size", "filled_size", *given]
    taken = [one.name for one in tail.graph.input]
    return compose.merge_models(joined, tail, io_map=list(zip(ends, taken, strict=True)))


def _parsed(text: str, core: "ModelProto") -> "ModelProto":
    """A model of a text, of the versions that another model is of."""
    from onnx import parser

    opset = next(one.version for one in core.opset_import if one.domain == "")
    return parser.parse_model(f'<ir_version: {core.ir_version}, opset_import: ["": {opset}]>\n{text}')


def _constant(kind: str, *values: float) -> str:
    """A constant of one dimension, of `kind` int64, float or double."""
    return f"Constant <value = {kind}[{len(values)}] {{{', '.join(map(repr, values))}}}> ()"


# what a frame cuts out of a picture, `part`, and the size that it gets, `filled_size`
CENTRE = """
        # the window that becomes `size`: whole pixels around the centre; all of a picture of that size
        shorter = ReduceMin (sides)
        scale = Div (shorter, resize)
        across = Mul (size_real, scale)
        across_near = Round (across)
        across_whole = Cast <to = 7> (across_near)
        across_most = Min (across_whole, whole_size)
        scaled_window = Max (across_most, one)
        equal_sides = Equal (whole_size, size)
        equal_numbers = Cast <to = 7> (equal_sides)
        equal_both = ReduceMin (equal_numbers)
        is_size = Cast <to = 9> (equal_both)
        window = Where (is_size, whole_size, scaled_window)
        around = Sub (whole_size, window)
        start = Div (around, two)
        end = Add (start, window)
        part = Slice (picture, start, end, rows_columns)
        filled_size = Identity (size)"""
FIT = """
        # the size at which the whole picture fits
        ratios = Div (size_real, sides)
        scale = ReduceMin (ratios)
        fitted = Mul (sides, scale)
        fitted_near = Round (fitted)
        fitted_whole = Cast <to = 7> (fitted_near)
        fitted_most = Min (fitted_whole, size)
        filled_size = Max (fitted_most, one)
        part = Identity (picture)"""
STRETCH = """
        part = Identity (picture)
        filled_size = Identity (size)"""
FRAMES = {"centre": CENTRE, "fit": FIT, "stretch": STRETCH}
MADE_GREY = """weighed = Mul (resized, grey)
        grey_pixels = ReduceSum (weighed, second)"""
# what a picture leaves of the input: `fill`
FILLED = """
        missing = Sub (size, filled_size)
        pads = Concat <axis = 0> (no_pads, missing)
        padded = Pad (scaled, pads)
        there = Shape (scaled)
        ones = ConstantOfShape <value = float[1] {1.0}> (there)
        covered = Pad (ones, pads)
        bare = Sub (unit, covered)
        filling = Mul (bare, fill)
        stored = Add (padded, filling)"""


def _head(preparation: Preparation) -> str:
    """From the picture to the stored input, with the (height, width) of the picture and of what it fills."""
    (height, width), channels = preparation.size, preparation.channels
    fills = ", ".join(map(repr, map(float, preparation.fill)))
    constants = {
        "size": _constant("int64", height, width),
        "size_real": _constant("double", float(height), float(width)),
        "one": _constant("int64", 1),
        "two": _constant("int64", 2),
        "rows_columns": _constant("int64", 0, 1),
        "first": _constant("int64", 0),
        "second": _constant("int64", 1),
        "one_of_three": _constant("int64", 1, 3),
        "resize": _constant("double", float(preparation.resize)),
        "white": _constant("float", preparation.white / PICTURE_WHITE),
        "grey": f"Constant <value = float[1, 3, 1, 1] {{{', '.join(map(repr, GREY))}}}> ()",
        "no_pads": _constant("int64", *[0] * 6),
        "unit": _constant("float", 1.0),
        "fill": f"Constant <value = float[1, {channels}, 1, 1] {{{fills}}}> ()",
    }
    body = f"""
        whole_size = Shape <start = 0, end = 2> ({PICTURE})
        sides = Cast <to = 11> (whole_size)
        {FRAMES[preparation.frame]}
        pixels = Cast <to = 1> (part)
        planes = Transpose <perm = [2, 0, 1]> (pixels)
        batch = Unsqueeze (planes, first)
        resized_shape = Concat <axis = 0> (one_of_three, filled_size)
        resized = {RESIZE} (batch, , , resized_shape)
        {MADE_GREY if channels == 1 else "grey_pixels = Identity (resized)"}
        scaled = Mul (grey_pixels, white)
        {FILLED if preparation.frame == "fit" else "stored = Identity (scaled)"}"""
    used = set(re.findall(r"\w+", body))
    lines = [f"{name} = {value}" for name, value in constants.items() if name in used]
    return f"""
    prepare (uint8[H, W, 3] {PICTURE})
        => (float[1, {channels}, {height}, {width}] stored, int64[2] whole_size, int64[2] filled_size)
    {{
        {NEWLINE.join(lines)}
        {body}
    }}
    """


def _tail(task: str, preparation: Preparation, classes: int, score: float, core: "ModelProto") -> str:
    """From the network's outputs to the answer."""
    if task == "classification":
        return """
    answer (int64[2] the_whole, int64[2] the_filled, float[b, k] logits) => (float[k] probabilities)
    {
        only = Constant <value = int64[1] {0}> ()
        shares = Softmax <axis = 1> (logits)
        probabilities = Squeeze (shares, only)
    }
    """
    if task == "detection":
        return _tail_of_detector(score, core)
    height, width = preparation.size
    channels = core.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return f"""
    answer (int64[2] the_whole, int64[2] the_filled, float[b, k, h, w] logits) => (uint8[H, W] classes)
    {{
        only = {_constant("int64", 0)}
        corner = {_constant("int64", 0, 0)}
        height_width = {_constant("int64", 2, 3)}
        one_of_all = {_constant("int64", 1, channels)}
        input_shape = {_constant("int64", 1, channels, height, width)}
        as_input = {RESIZE} (logits, , , input_shape)
        seen = Slice (as_input, corner, the_filled, height_width)
        large_shape = Concat <axis = 0> (one_of_all, the_whole)
        large = {RESIZE} (seen, , , large_shape)
        best = ArgMax <axis = 1, keepdims = 0> (large)
        labels = Squeeze (best, only)
        count = {_constant("int64", classes)}
        no_class = {_constant("int64", NO_CLASS)}
        is_class = Less (labels, count)
        named = Where (is_class, labels, no_class)
        classes = Cast <to = 2> (named)
    }}
    """


def _tail_of_detector(score: float, core: "ModelProto") -> str:
    """Decoding and suppression; the classes stand where images do, as each has boxes of its own."""
    shape = core.graph.output[1].type.tensor_type.shape
    priors, outputs = (shape.dim[axis].dim_value for axis in (1, 2))
    return f"""
    answer (int64[2] the_whole, int64[2] the_filled, float[b, p, 4] offsets, float[b, p, k] logits,
            float[p, 4] priors)
        => (float[n, 4] boxes, float[n] scores, int64[n] labels)
    {{
        variance_of_centres = {_constant("float", VARIANCES[0])}
        variance_of_sides = {_constant("float", VARIANCES[1])}
        half_ = {_constant("float", 0.5)}
        zero_to = Constant <value = float {{0.0}}> ()
        to_one = Constant <value = float {{1.0}}> ()
        only = {_constant("int64", 0)}
        after_background = {_constant("int64", 1)}
        past_the_last = {_constant("int64", outputs)}
        last_axis = {_constant("int64", 2)}
        candidates = {_constant("int64", min(STANDARD["top"], priors))}
        most = {_constant("int64", STANDARD["keep"])}
        overlap = {_constant("float", STANDARD["iou"])}
        threshold = {_constant("float", score)}
        class_and_place = {_constant("int64", 0, 2)}
        in_each = {_constant("int64", 1)}
        across_down = {_constant("int64", 1, 0, 1, 0)}

        moves, growths = Split <axis = 2, num_outputs = 2> (offsets)
        prior_centres, prior_sides = Split <axis = 1, num_outputs = 2> (priors)
        small_moves = Mul (moves, variance_of_centres)
        moved = Mul (small_moves, prior_sides)
        centres = Add (prior_centres, moved)
        small_growths = Mul (growths, variance_of_sides)
        factors = Exp (small_growths)
        box_sides = Mul (prior_sides, factors)
        halves = Mul (box_sides, half_)
        low = Sub (centres, halves)
        high = Add (centres, halves)
        corners = Concat <axis = 2> (low, high)
        of_picture = Squeeze (corners, only)

        shares = Softmax <axis = 2> (logits)
        of_objects = Slice (shares, after_background, past_the_last, last_axis)
        by_class = Transpose <perm = [2, 0, 1]> (of_objects)
        likely, which = TopK <axis = 2> (by_class, candidates)
        which_prior = Squeeze (which, in_each)
        taken = Gather <axis = 0> (of_picture, which_prior)
        kept = NonMaxSuppression (taken, likely, most, overlap, threshold)
        places = Gather <axis = 1> (kept, class_and_place)
        likely_of_class = Squeeze (likely, in_each)
        kept_scores = GatherND (likely_of_class, places)
        kept_boxes = GatherND (taken, places)
        kept_count = Shape (kept_scores)
        count = Min (kept_count, most)
        scores, order = TopK <axis = 0> (kept_scores, count)

        inside = Clip (kept_boxes, zero_to, to_one)
        sorted_boxes = Gather <axis = 0> (inside, order)
        whole_sides = Gather <axis = 0> (the_whole, across_down)
        pixels_across = Cast <to = 1> (whole_sides)
        boxes = Mul (sorted_boxes, pixels_across)
        first_column = Gather <axis = 1> (kept, only)
        kept_labels = Squeeze (first_column, in_each)
        labels = Gather <axis = 0> (kept_labels, order)
    }}
    """
