"""The main job: from sources to a quantized model and a report. ``python train.py --help`` lists the options."""

import argparse

from symptomchat.cli import add_train_arguments, run, train

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_train_arguments(parser)
    parser.set_defaults(run=train)
    raise SystemExit(run(parser.parse_args()))
