"""Average the weights of one network's files, for instance of epochs and of what their training began with.

    python experiments/average.py WEIGHTS.safetensors WEIGHTS.safetensors ... --out AVERAGE.safetensors

``vmkla train`` keeps the best and the last epoch: copy ``last.safetensors`` after each epoch that counts.
Source: Wortsman et al., Model soups, 2022, with equal weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from vmkla.errors import UsageError, VmklaError
from vmkla.models.checkpoints import load_weights, save_weights

FIGURES = ("val_dice", "val_iou", "figures")
"""Facts of a training that its average with other weights does not have."""


def average(paths: Sequence[Path], out: Path) -> None:
    """Write the mean of the weights. Its other facts are those of the last file; it names all by their hash.

    Args:
        paths: files of equal configurations and classes.
        out: the file to write.
    Raises:
        UsageError: two files are of different networks.
    """
    files = [load_weights(path) for path in paths]
    last = files[-1]
    for path, file in zip(paths, files, strict=True):
        if (file.config, file.class_names) != (last.config, last.class_names):
            raise UsageError(f"{path} holds another network than {paths[-1]}: only equal ones have a mean")
    states = [file.model.state_dict() for file in files]
    mean = {
        name: sum(state[name] for state in states) / len(states) if value.is_floating_point() else value
        for name, value in states[-1].items()
    }
    last.model.load_state_dict(mean)
    training = {name: value for name, value in last.training.items() if name not in FIGURES}
    training["averaged_sha256"] = [file.sha256 for file in files]
    save_weights(last.model, out, training=training, class_names=last.class_names, threshold=last.threshold)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        average(args.weights, args.out)
    except VmklaError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
