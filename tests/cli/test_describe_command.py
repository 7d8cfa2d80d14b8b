"""``resnet-fused describe``: its table, its JSON, its drawing, and wrong usage."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from resnet_fused import models
from resnet_fused.cli import describe, main

SVG = "{http://www.w3.org/2000/svg}"


def shown(capsys, *arguments):
    assert main(["describe", *arguments]) == 0
    return capsys.readouterr().out


def columns(text):
    """The table's cells: {output size: [lines of each column]}, each column as wide as the heading says."""
    head, *lines = text.splitlines()[:-1]
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    cells, key = {}, None
    for line in lines:
        pieces = [line[a:b].strip() for a, b in zip(starts, (*starts[1:], None))]
        if pieces[0]:
            key = pieces[0]
            cells[key] = [[] for _ in starts[1:]]
        if key is None or not line:
            key = None
            continue
        for cell, piece in zip(cells[key], pieces[1:]):
            cell += [piece] if piece else []
    return cells


def test_the_chapters_figure(capsys):
    """VGG-19, the plain and the residual network of 34 layers: He et al. 2016, figure 3, row by row."""
    cells = columns(shown(capsys, "vgg19", "plain34", "resnet34"))
    layers = {size: [[line for line in cell if line[0] != "="] for cell in row] for size, row in cells.items()}
    assert layers["224x224"] == [["input", "2 x 3x3 conv, 64"], ["input"], ["input"]]
    assert layers["112x112"] == [["2x2 max pool, /2", "2 x 3x3 conv, 128"], ["7x7 conv, 64, /2"], ["7x7 conv, 64, /2"]]
    assert layers["56x56"] == [["2x2 max pool, /2", "4 x 3x3 conv, 256"], ["3x3 max pool, /2", "6 x 3x3 conv, 64"],
                               ["3x3 max pool, /2", "3 x [3x3, 64 | 3x3, 64]"]]  # fmt: skip
    assert layers["14x14"][1:] == [
        ["3x3 conv, 256, /2", "11 x 3x3 conv, 256"],
        ["[3x3, 256, /2 | 3x3, 256, projection]", "5 x [3x3, 256 | 3x3, 256]"],
    ]
    assert layers["1x1"] == [["2 x fc 4096", "fc 1000"], *[["average pool to 1x1", "fc 1000"]] * 2]
    assert [cell[0] for cell in cells["total"]] == [f"{n} layers with weights" for n in (19, 34, 34)]
    assert [cell[2] for cell in cells["total"]] == [f"{n} G mult-add" for n in ("19.632", "3.644", "3.664")]


def test_numbers_of_a_stage(capsys):
    """resnet34's stage of 56x56, by hand: 6 convolutions of 64·64·9 weights and batch norms on 56·56 pixels.

    Eager keeps 6 raw outputs, 6 activations, and of the pool an output and 8 bytes of index; fused 6 raw outputs, 3
    blocks' outputs, the pool's and 1 byte of index: in MiB of 4·64·56² bytes, 0.7656 each.
    """
    (line,) = [line for line in columns(shown(capsys, "resnet34"))["56x56"][0] if line[0] == "="]
    one = 4 * 64 * 56**2 / 2**20
    parameters, multiply_adds = 6 * (64 * 64 * 9 + 2 * 64), 6 * 64 * 64 * 9 * 56**2
    assert line == (f"= {parameters / 1e3:.0f} k param, {multiply_adds / 1e6:.0f} M mult-add, "
                    f"{(6 + 6 + 1 + 2) * one:.3g} / {(6 + 3 + 1 + 0.25) * one:.3g} MiB")  # fmt: skip


@pytest.mark.parametrize("value, text", ((0, "0"), (650, "650"), (9536, "9.54 k"), (999_600, "1 M"),
                                         (1.814e9, "1.81 G"), (123.6e9, "124 G"), (1234e9, "1234 G")))  # fmt: skip
def test_numbers_in_words(value, text):
    assert describe.count(value) == text


def test_image_and_batch(capsys):
    cells = columns(shown(capsys, "resnet20", "plain20", "--image", "16", "--batch", "3"))
    assert set(cells) == {"16x16", "8x8", "4x4", "1x1", "total"}
    # a quarter of resnet20's 40,551,040 at 32x32, but for its 640 of fc; three images
    assert cells["total"][0][2] == f"{3 * ((40_551_040 - 640) / 4 + 640) / 1e9:.3f} G mult-add"
    assert "[3x3, 32, /2 | 3x3, 32, zero channels]" in cells["8x8"][0]


def test_layers(capsys):
    """A line for each layer; resnet20's first stage by hand: 16·32² values of 4 bytes, kept twice by eager."""
    lines = shown(capsys, "resnet20", "resnet8", "--layers").splitlines()
    (first,) = [i for i, line in enumerate(lines) if line.startswith("resnet20  ") and "bytes kept fused" in line]
    rows = [re.split(r"  +", line) for line in lines[first + 2 : lines.index("", first)]]
    assert rows[0] == ["-", "input", "3x32x32", "0", "0", "12,288", "12,288"]
    found = {row[0]: row[1:] for row in rows}
    assert found["layer1.0.conv1"] == ["3x3 conv, 16", "16x32x32", "2,304", "2,359,296", "0", "0"]
    assert found["layer1.0.bn1"] == ["BatchNorm2d", "16x32x32", "32", "0", "65,536", "65,536"]
    relus = [row[5:] for row in rows if row[0] == "layer1.0.relu"]  # one module, called twice
    assert relus == [["65,536", "0"], ["65,536", "65,536"]]
    assert found["layer2.0.conv1"][0] == "3x3 conv, 32, /2" and found["fc"] == ["fc 10", "10", "650", "640", "0", "0"]
    sums = [sum(int(row[i].replace(",", "")) for row in rows) for i in (3, 4)]
    assert sums == [269_722, 40_551_040]
    assert sum("bytes kept fused" in line for line in lines) == 2


def test_json(tmp_path, capsys):
    path = tmp_path / "new folder" / "models.json"
    shown(capsys, "resnet50", "--json", str(path))
    (model,) = json.loads(path.read_text())["models"]
    assert (model["name"], model["image"], model["batch"], model["depth"]) == ("resnet50", 224, 1, 50)
    assert model["parameters"] == 25_557_032 and model["multiply_adds"] == 4_089_184_256
    for field in ("parameters", "multiply_adds", "kept_eager", "kept_fused"):
        assert model[field] == sum(s[field] for s in model["stages"]) == sum(y[field] for y in model["layers"])
    assert [stage["output"][0] for stage in model["stages"]] == [224, 112, 56, 28, 14, 7, 1]
    convs = [layer for layer in model["layers"] if layer["kind"] == "conv"]
    assert len(convs) == 53 and sum(layer["in_shortcut"] for layer in convs) == 4
    assert os.listdir(path.parent) == ["models.json"]  # no partial file is left


def test_drawing(tmp_path, capsys):
    """A box for each layer but projections, an arc for each block, and the same bytes every time."""
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (first, second):
        shown(capsys, "plain18", "resnet18", "--svg", str(path))
    assert first.read_bytes() == second.read_bytes()
    texts = ["".join(element.itertext()) for element in ElementTree.parse(first).iter(f"{SVG}text")]
    assert texts.count("3x3 conv, 64") == 4 + 4 and texts.count("3x3 conv, 512, /2") == 2 and "resnet18" in texts
    assert texts.count("7x7 conv, 64, /2") == texts.count("fc 1000") == 2
    styles = [element.get("style", "") for element in ElementTree.parse(first).iter(f"{SVG}path")]
    dashed = [style for style in styles if "stroke-dasharray" in style]
    assert len(dashed) >= 3  # the projections; matplotlib draws an arc's head apart


@pytest.mark.parametrize("arguments, words", (
    (["resnet51"], "there is no model 'resnet51'; did you mean resnet56 or resnet50 or resnet18?"),
    (["resnet18", "alexnot"], "there is no model 'alexnot'"),
    (["vgg16", "--image", "16"], "images of 16x16 are too small for vgg16"),
    (["resnet18", "--image", "0"], "0 is not at least 1"),
    ([], "the following arguments are required: MODEL"),
))  # fmt: skip
def test_wrong_usage(arguments, words, tmp_path, capsys):
    path = tmp_path / "a.json"
    with pytest.raises(SystemExit) as exit_:
        main(["describe", *arguments, "--json", str(path)])
    captured = capsys.readouterr()
    assert exit_.value.code == 2 and words in captured.err and not captured.out
    assert not path.exists()


@pytest.mark.parametrize("option", ("--json", "--svg"))
def test_a_place_that_cannot_be_written_to_is_a_sentence(option, tmp_path, capsys):
    """Said before the table."""
    (tmp_path / "file").write_text("kept")
    for path, why in ((tmp_path / "file" / "a", "Not a directory"), (tmp_path, "Is a directory")):
        assert main(["describe", "resnet20", option, str(path)]) == 1
        captured = capsys.readouterr()
        assert captured.err == f"resnet-fused describe: {path} cannot be written to: {why}\n" and not captured.out
    assert (tmp_path / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_every_model_is_described(capsys):
    names = [name for name in models.list_models() if name != "resnet1202"]  # whose 1202 layers take many seconds
    cells = columns(shown(capsys, *names))
    assert all(len(cell) == 5 for cell in cells["total"]) and len(cells["total"]) == len(names)


@pytest.mark.slow
def test_closed_output_ends_it_quietly():
    """As by `| head -1`."""
    command = [sys.executable, "-m", "resnet_fused", "describe", "resnet1202", "--layers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "resnet1202" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
